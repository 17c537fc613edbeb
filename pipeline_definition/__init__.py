"""The DAG and what is done with it: build, upsert, start, watch, approve, and the local control plane."""
