#!/bin/sh
# g++ with every access of a kernel watched. The second command names no sanitizer: what they would call is the emulator's.
set -e
g++ -g -fsanitize=thread -fsanitize=alignment,bounds -DEMULATED_HOST_MEMORY -c "$@"
while [ "$1" != -o ]; do shift; done
mv "$2" "$2.o"
g++ "$2.o" -lm -o "$2"
