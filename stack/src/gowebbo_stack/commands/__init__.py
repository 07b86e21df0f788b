"""The commands of `gowebbo`: a module for each group. They parse, call and print, and import only what they need."""

import typer

from gowebbo_stack.commands import copies, embedded, fleet, practices, servers, shards

app = typer.Typer(
    help="GoWebbo: run everything on this machine, and look after practices and their servers.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.command()(embedded.up)
app.command()(embedded.status)
app.command()(embedded.clean_data)
app.command()(embedded.mailbox)
app.add_typer(practices.app, name="practices")
copies.add_to(practices.app)
app.add_typer(fleet.app, name="fleet")
app.add_typer(servers.app, name="servers")
app.add_typer(shards.app, name="shards")
