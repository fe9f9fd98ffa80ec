"""Tests run on one thread: tiny tensors are faster so, and sums have one order."""

import torch

torch.set_num_threads(1)
