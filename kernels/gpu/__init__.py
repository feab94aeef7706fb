"""The engine on a CUDA device: kernels of `kernels/cuda/`, memory and products through CuPy."""
