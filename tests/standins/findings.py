"""What the tests of `doctor` share."""

from medarc_plugin.doctor import Subject


def found(look, subject=None):
    """Statuses and texts of what a check finds."""
    return [(finding.status, finding.text) for finding in look(subject or Subject())]


def statuses(look, subject=None):
    """The statuses alone."""
    return [finding.status for finding in look(subject or Subject())]


def program(folder, name, text):
    """Put a program, or a module, into a folder of the test's own."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    # A stand-in's packages are links to those of this environment, which tests must not write to.
    assert not folder.is_symlink()
    assert not path.is_symlink()
    path.write_text(text)
    path.chmod(0o755)
    return path
