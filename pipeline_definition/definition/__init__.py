"""The DAG: settings in, the definition JSON out. Imports params and the SageMaker SDK alone."""
