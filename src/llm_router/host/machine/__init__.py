"""The machine as it is: processes, ports, logs, programs, memory and GPUs."""
