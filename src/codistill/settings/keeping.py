"""Which classifiers of a run may ship: by the method, the named student and the setting `keep`."""

from collections.abc import Mapping

from codistill.errors import InputError
from codistill.settings.config import Config


def names_kept(
    config: Config, students: Mapping[str, int], parameters: Mapping[str, int]
) -> list[str]:
    """The names of the classifiers of which one ships; the held-out images choose among several.

    Args:
        config: settings of the run.
        students: for each classifier that the method keeps (`Method.students`), the peer that it is
            or copies.
        parameters: number of parameters of each peer, by its name.

    Raises:
        InputError: `keep` asks for a peer that the method does not keep.
    """
    places = {k for k, name in enumerate(config.networks()) if name == config.student}
    if config.keep in ("auto", "best"):
        named = [name for name, k in students.items() if k in places]
        return named if named and config.keep == "auto" else list(students)
    if config.keep == "smallest":
        sizes = {k: parameters[f"peer{k}"] for k in students.values()}
        places = {k for k, size in sizes.items() if size == min(sizes.values())}
    elif config.keep != "student":
        places = {int(config.keep.removeprefix("peer"))}
    found = [name for name, k in students.items() if k in places]
    if not found:
        raise InputError(
            f"keep is {config.keep!r}, and method {config.method['name']!r} keeps "
            f"{' or '.join(students)}: leave out --keep, or take another method"
        )
    return found
