"""The estimate of memory beside what processes that train take at their peak."""

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
method, precision, recompute = sys.argv[1:]
shared = 2 if method == "ffl" else 0
config = Config(
    method={"name": method}, network="resnet32", shared=shared, recompute=recompute == "True"
)
training = TrainingState(build_method(config, 100, (32, 32)), make_optimizer(config))
x = torch.randn(128, 3, 32, 32).contiguous(memory_format=torch.channels_last)
train_epoch(training, [Batch([x], torch.arange(128) % 100)] * 4, precision)
print(peak() - begin)
"""


def measured(method, precision, recompute=False):
    command = [sys.executable, "-c", PEAK, method, precision, str(recompute)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def estimated(method, precision):
    config = Config(method={"name": method}, network="resnet32", shared=2 * (method == "ffl"))
    return summarise_method(build_method(config, 100, (32, 32)), (32, 32), 128, precision).memory


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("method", ["ffl", "dml"])
def test_the_estimate_is_within_15_percent_of_the_peak(method, precision):
    estimate = estimated(method, precision)
    assert estimate.total == pytest.approx(measured(method, precision), rel=0.15)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_computing_stages_again_saves_memory():
    assert measured("dml", "fp32", recompute=True) < 0.75 * measured("dml", "fp32")
