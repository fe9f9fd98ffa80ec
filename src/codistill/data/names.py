"""The data sets by name. Imports nothing, so that the command's help comes at once."""

DATASETS: dict[str, str] = {
    "cifar10": "60,000 colour photographs, 10 classes, 32 x 32; downloaded, or from data.root",
    "cifar100": "60,000 colour photographs, 100 classes, 32 x 32; downloaded, or from data.root",
    "digits": "1,797 handwritten digits, 8 x 8, that come with scikit-learn; nothing to download",
}
