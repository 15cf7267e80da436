"""Training jobs of Amazon SageMaker: requests as plain dicts, checked and priced before anything is sent."""
