"""quantwise: which quantization to ship for your model, your hardware and your tasks, with evidence you can check.

Importing the package loads no torch.
"""

__version__ = "0.1.0"
