# shellcheck shell=bash
# Shared by the scripts in this folder. Sourced, never run.
# The caller sets `root`, the tree's absolute path, before it calls a function.
# Promise: only a function whose comment says "prints" writes to standard output.
: "${root:=}"
rust_state=missing

say() { printf '%s\n' "$*" >&2; }

# Prints the version that rust-toolchain.toml pins.
rust_pinned() {
  sed -n 's/^channel *= *"\(.*\)"$/\1/p' "$root/rust-toolchain.toml"
}

# True when the toolchain folder $1 holds exactly the compiler version $2.
rust_folder_is() {
  [ -x "$1/bin/rustc" ] || return 1
  case $("$1/bin/rustc" --version 2>/dev/null) in
    "rustc $2 "*) return 0 ;;
    *) return 1 ;;
  esac
}

# Chooses a toolchain that is already on this machine, without asking the
# network. Sets `rust_state` to one of: pinned (rustup has it under its own
# name), alias (another installed toolchain is that very version, then
# RUSTUP_TOOLCHAIN names it), path (no rustup, but rustc is new enough),
# missing.
rust_choose() {
  local pinned home folder version
  pinned=$(rust_pinned)
  rust_state=missing
  if ! command -v cargo >/dev/null 2>&1 && [ -x "${CARGO_HOME:-${HOME:-/nonexistent}/.cargo}/bin/cargo" ]; then
    PATH=${CARGO_HOME:-$HOME/.cargo}/bin:$PATH
    export PATH
  fi
  command -v cargo >/dev/null 2>&1 || return 0
  if ! command -v rustup >/dev/null 2>&1; then
    version=$(rustc --version 2>/dev/null | cut -d' ' -f2) || return 0
    if [ -n "$version" ] && [ "$(printf '%s\n' "$pinned" "${version%%-*}" | sort -V | head -n 1)" = "$pinned" ]; then
      rust_state=path
    fi
    return 0
  fi
  home=${RUSTUP_HOME:-${HOME:-/nonexistent}/.rustup}
  for folder in "$home/toolchains/$pinned"-*; do
    if [ -x "$folder/bin/rustc" ]; then
      rust_state=pinned
      return 0
    fi
  done
  for folder in "$home"/toolchains/*; do
    if rust_folder_is "$folder" "$pinned"; then
      RUSTUP_TOOLCHAIN=$(basename -- "$folder")
      export RUSTUP_TOOLCHAIN
      # shellcheck disable=SC2034 # its reader is the script that sourced this file
      rust_state="alias"
      return 0
    fi
  done
}

# Prints a folder for build results that the caller may write: the tree's own, or one
# in the caller's cache when the tree belongs to somebody else.
target_directory() {
  if [ -n "${CARGO_TARGET_DIR:-}" ]; then
    printf '%s\n' "$CARGO_TARGET_DIR"
  elif [ -w "$root/target" ] || { [ ! -e "$root/target" ] && [ -w "$root" ]; }; then
    printf '%s\n' "$root/target"
  else
    printf '%s\n' "$(cache_directory)/target-$(printf '%s' "$root" | cksum | cut -d' ' -f1)"
  fi
}

cache_directory() {
  printf '%s\n' "${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/tipstaff"
}
