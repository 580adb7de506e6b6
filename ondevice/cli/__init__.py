"""The ``ondevice`` command. One file per subcommand, imported when it is asked for."""

from __future__ import annotations

import errno
import logging
import os
import sys
from collections.abc import Sequence
from importlib import import_module

import click

from ..errors import OnDeviceError

COMMANDS = {  # name -> module:attribute
    "demo": "demo:demo",
    "list": "list_:list_command",
    "show": "show:show",
    "classify": "classify:classify_command",
    "detect": "detect:detect_command",
    "depth": "depth:depth_command",
    "segment": "segment:segment_command",
    "zeroshot": "zeroshot:zeroshot_command",
    "encode": "encode:encode_command",
    "search": "search:search_command",
    "describe": "describe:describe_command",
    "bench-vlm": "bench_vlm:bench_command",
    "train": "train:train_command",
    "evaluate": "evaluate:evaluate_command",
    "import": "import_:import_command",
    "export": "export:export_command",
    "verify": "verify:verify_command",
    "app": "app:app_command",
    "inspect": "inspect:inspect_command",
    "studio": "studio:studio",
    "doctor": "doctor:doctor",
}


COMPLETION = "_ONDEVICE_COMPLETE"  # a shell sets it
FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)  # what a file's rights, or disk, refuse
READER_GONE = 141  # exit status, as of a process that SIGPIPE ended


class _LazyGroup(click.Group):
    """A group that imports a command's module when the command is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[name].partition(":")
        command: click.Command = getattr(import_module(f"{__name__}.{module}"), attribute)
        return command


@click.group(cls=_LazyGroup, invoke_without_command=True)
@click.version_option(package_name="ondevice")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Efficient vision models on Apple hardware: MLX models, verified Core ML packages."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def main() -> None:
    """The console script."""
    sys.exit(run(sys.argv[1:]))


def run(args: Sequence[str]) -> int:
    """Run one command line and give its exit status.

    What a user can mend is one line on stderr and status 2; a bug keeps its traceback.
    """
    _log_to_stderr()
    try:
        status = cli.main(list(args), prog_name="ondevice", standalone_mode=False)
        sys.stdout.flush()
        return status if isinstance(status, int) else 0
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "ondevice"
        return _fail(f"{error.format_message()} See `{command} --help`.")
    except click.ClickException as error:
        return _fail(error.format_message())
    except OnDeviceError as error:
        return _fail(str(error))
    except SystemExit:  # click's, if the reader has gone, with 1, which is a missed gate's
        if COMPLETION in os.environ:
            raise  # it is a completion that has ended
        return READER_GONE
    except MemoryError:
        return _fail("out of memory; try a smaller model, image size or batch")
    except OSError as error:
        return _fail_writing(error)
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted", err=True)
        return 130


def _fail(message: str, status: int = 2) -> int:
    click.echo(f"error: {message}", err=True)
    return status


def _fail_writing(error: OSError) -> int:
    """The reader of our output has gone, the disk is full, or a file may not be read or
    written; the rest is a bug."""
    if error.errno in FORBIDDEN and error.filename is not None:
        return _fail(f"{error.strerror}: {error.filename}")
    if error.errno not in (errno.EPIPE, errno.ENOSPC, errno.EDQUOT):
        raise error
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # for what Python flushes when it ends
    if error.errno == errno.EPIPE:
        return READER_GONE
    return _fail(f"{error.strerror}: {error.filename or 'standard output'}")


class _OneLine(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        click.echo(f"{record.levelname.lower()}: {record.getMessage()}", err=True)


def _log_to_stderr() -> None:
    for name in ("ondevice", "converters"):
        logging.getLogger(name).handlers = [_OneLine()]
