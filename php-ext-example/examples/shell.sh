#!/bin/sh
# Four ways to publish from the shell to the channel "news": shell.sh DIR SOCKET
set -eu
dir=${1:-/dev/shm}
socket=${2:-/run/comet/comet.sock}

# A signal without content. This needs neither the comet command nor a running daemon.
touch "$dir/news.comet"

# With content: written to a hidden file, which is then renamed, so that no reader ever sees half of the content.
printf 'by file' > "$dir/.news.tmp"
mv "$dir/.news.tmp" "$dir/news.comet"

# Acknowledged: prints the id of the message.
comet publish news 'by command' --socket "$socket"

# The same without the comet command.
printf '{"op":"publish","channel":"news","data":"by socket"}\n' | socat -t 5 - "UNIX:$socket"
