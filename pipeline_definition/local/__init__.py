"""The local control plane: SageMaker on this machine, behind the same API, for the same pipeline definition.

A moto server on loopback with an executor of the definition JSON behind StartPipelineExecution. Jobs and endpoints
are processes under SageMaker's container contract. State lives in one folder that can be deleted.

    python -m pipeline_definition.local --state .sd-pipeline --runs runs
"""
