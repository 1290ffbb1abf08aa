# shellcheck shell=bash
cmd_image() { die "not yet"; }
