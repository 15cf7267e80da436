"""Work beside training, from one description: preparing a data set, evaluating a policy; here or as a SageMaker job."""
