"""The commands of tools/gpu_suite."""
