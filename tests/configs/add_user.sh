#!/bin/sh
# Make an account for a student; the hub passes the name as the last argument.
set -eu
useradd --create-home --shell /bin/bash --comment "student" -- "$1"
