//! What `--help` says below the flags.

/// Variables, examples, commands, exit codes.
pub const AFTER: &str = "\
Each flag is also an environment variable: `--max-bytes 1GiB` is
`KTRACE_MAX_BYTES=1GiB`, `--dns-only` is `KTRACE_DNS_ONLY=true`. What may be
repeated is separated by commas there. A flag wins over its variable.

Examples:
  ktrace doctor                               what is wrong here, on one screen
  ktrace --duration 60s --dns-only            all DNS here for a minute
  ktrace --ports 5432 --label incident=4711   one database, labelled
  ktrace --namespace shop --pod 'api-*'       some pods, new ones included
  ktrace --max-events 1000000 --max-bytes 1GiB --with-security=false
  ktrace -- curl -s http://example.org/       all that happens while curl runs
  ktrace check                                what this machine supports
  ktrace hooks show udp                       what one hook sees and costs

With `-- CMD ARGS...` the window opens before CMD starts and closes when it
ends, after 1h at most, or after `--duration` if that is given. CMD is never
killed: it is handed SIGINT and SIGTERM, is waited for for 2 s, and goes on
alone after that. Its exit code is in the manifest.

With `--stdout` each event is a line of JSON on stdout within a moment, the
same line as in `events.jsonl`; CMD then writes to stderr. A reader that closes
stdout ends the capture. One that is slow does not slow the capture: lines that
8 MiB of buffer cannot hold are left out (`seq` shows the gap), counted in the
manifest, and in the bundle all the same.

Exit codes:
  0  bundle sealed and complete
  1  error
  2  usage
  3  nothing could be attached
  4  bundle sealed, but something that was asked for is missing (0 with
     `--degraded-ok`)

The only line on stdout is the path of the bundle: `analyze` reads it. With a
command, whose stdout it is, or with `--stdout`, the path is the last line on
stderr, and only the reason for an early end or a degraded capture follows it.";
