# An image of one's own for training jobs and endpoints: starts in seconds, needs no network, holds the versions of constraints.txt.
#
#   docker build -t policylab .
#   docker build -t policylab --build-arg BASE=ACCOUNT.dkr.ecr.REGION.amazonaws.com/pytorch-training:TAG .   # with GPU drivers
#
# What any other image needs to be used instead is written in docs/container.md.
ARG BASE=python:3.11-slim-bookworm
FROM ${BASE}

ARG EXTRAS=rllib,serve
# Torch for processors alone is a tenth of the size: TORCH_INDEX=https://download.pytorch.org/whl/cpu
ARG TORCH_INDEX=https://pypi.org/simple
COPY . /tmp/policylab
RUN python3 -m pip install --no-cache-dir --extra-index-url "${TORCH_INDEX}" \
      --constraint /tmp/policylab/constraints.txt "/tmp/policylab[${EXTRAS}]" \
 && rm -rf /tmp/policylab

# The service starts `train` where a request names no command, as those of tuning jobs cannot, and `serve` for endpoints.
# There is no ENTRYPOINT, and `exec` leaves Python as process 1: SIGTERM, by which a job is told to save, reaches no other.
RUN printf '%s\n' '#!/bin/sh' 'code=/opt/ml/input/data/code' \
      'if [ -f "$code/bootstrap.py" ]; then cd "$code" && exec python3 bootstrap.py; fi' \
      'exec python3 -m policylab container' > /usr/local/bin/train \
 && printf '%s\n' '#!/bin/sh' 'exec python3 -m policylab container serve' > /usr/local/bin/serve \
 && chmod 755 /usr/local/bin/train /usr/local/bin/serve

ENV PYTHONUNBUFFERED=1
