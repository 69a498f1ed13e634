"""What the tests of doctor share."""

from __future__ import annotations

# Defines findings_and_status() in a program of its own.
EXAMINE = """
    import json, os, resource, sys
    from programs import become_nobody, forbid_system_call
    from torch_s3io import cli

    cli.make_parser()  # imports all that is needed

    def findings_and_status(*arguments):
        import contextlib, io
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            status = cli.main(["doctor", "--json", *arguments])
        return {f["topic"]: f for f in json.loads(output.getvalue())["findings"]}, status
"""


def by_topic(examination) -> dict[str, object]:
    return {finding.topic: finding for finding in examination.findings}
