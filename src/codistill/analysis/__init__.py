"""Measurements of a finished run beyond its history: calibration, classes, maps, Grad-CAM."""

from codistill.analysis.analyse import Analysis, analyse
from codistill.analysis.calibration import Bin, Calibration, calibration
from codistill.analysis.classes import ClassChange, ClassChanges, class_accuracies, class_changes
from codistill.analysis.grad_cam import HeatMap, Picture, disagreements, grad_cam
from codistill.analysis.mistakes import Mistake, Mistakes, mistakes
from codistill.analysis.predictions import Guesses, Missing, Predictions, predict
from codistill.analysis.similarity import MapSimilarity, Similarities, map_similarities

__all__ = [
    "Analysis",
    "Bin",
    "Calibration",
    "ClassChange",
    "ClassChanges",
    "Guesses",
    "HeatMap",
    "MapSimilarity",
    "Missing",
    "Mistake",
    "Mistakes",
    "Picture",
    "Predictions",
    "Similarities",
    "analyse",
    "calibration",
    "class_accuracies",
    "class_changes",
    "disagreements",
    "grad_cam",
    "map_similarities",
    "mistakes",
    "predict",
]
