"""The estimate of memory beside what processes that train take at their peak."""

import os
import subprocess
import sys

import pytest

from codistill.analysis.cost.summary import summarise_method
from codistill.settings.build_method import build_method
from codistill.settings.config import Config

# Four steps as a run takes them; shows the peak of resident memory beyond that after the imports.
PEAK = """
import sys
import torch
from codistill import TrainingState
from codistill.settings.build_method import build_method, make_optimizer
from codistill.settings.config import Config
from codistill.data.batch import Batch
from codistill.training.fit import train_epoch

def peak():  # not ru_maxrss, which counts the process that started this one too
    line, = (x for x in open("/proc/self/status") if x.startswith("VmHWM"))
    return int(line.split()[1]) * 1024

torch.set_num_threads(1)
begin = peak()
method, precision, recompute, images = sys.argv[1:]
shared = 2 if method == "ffl" else 0
config = Config(
    method={"name": method}, network="resnet32", shared=shared, recompute=recompute == "True"
)
built = build_method(config, 100, (32, 32))
training = TrainingState(built, make_optimizer(config, built))
x = torch.randn(int(images), 3, 32, 32).contiguous(memory_format=torch.channels_last)
train_epoch(training, [Batch([x], torch.arange(int(images)) % 100)] * 4, precision)
print(peak() - begin)
"""


def measured(method, precision, recompute=False, images=128):
    """Bytes at the peak. The allocator gives back at once what is freed."""
    command = [sys.executable, "-c", PEAK, method, precision, str(recompute), str(images)]
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return int(done.stdout)


def estimated(method, precision, images=128):
    config = Config(method={"name": method}, network="resnet32", shared=2 * (method == "ffl"))
    built = build_method(config, 100, (32, 32))
    return summarise_method(built, (32, 32), images, precision).memory.tensors


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("method", ["ffl", "dml"])
def test_more_images_take_as_much_more_as_estimated(method, precision):
    """A step on two images has loaded PyTorch's kernels, which are no tensors, as well."""
    more = measured(method, precision) - measured(method, precision, images=2)
    estimate = estimated(method, precision) - estimated(method, precision, images=2)
    assert estimate == pytest.approx(more, rel=0.1)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_computing_stages_again_saves_memory():
    assert measured("dml", "fp32", recompute=True) < 0.75 * measured("dml", "fp32")
