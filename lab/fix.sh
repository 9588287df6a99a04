#!/bin/bash
# fix.sh NAME            undoes a fault that break.sh injected
# fix.sh --all           undoes all faults, the last one first
# fix.sh --forget NAME   only drops the record of a fault that never took effect
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
. "$LAB_DIR/faults.sh"
[ $# -gt 0 ] || set -- --help
help_if_asked "$@"
need_root
need_lab

not_there() { ! "$1"; }
fix_one() { # NAME
  local name=$1 fn=${1//-/_} I='' u='' d='' freeze=''
  S=$FAULTS/$name
  [ -n "${F_VM[${name:-none}]:-}" ] || die "no fault is called $name: lab/break.sh --list lists them"
  [ -d "$S" ] || die "$name is not injected (lab/break.sh --active lists the injected faults)"
  # shellcheck source=/dev/null  # assignments, written by break.sh
  . "$S/target"
  say "fixing $name"
  "f_$fn"
  # last, because nova must not act on the fault just before it is undone
  thaw
  until_ok 30 not_there "c_$fn" || die "$name is still in effect (its record: $S)"
  rm -rf --one-file-system "$S"
  say "fixed: $name"
}

case $1 in
  --forget) rm -rf --one-file-system "${FAULTS:?}/${2:?which fault?}" ;;
  --all)
    # shellcheck disable=SC2045  # names of faults contain no spaces; the order by time is intended
    for n in $(ls -t "$FAULTS"); do fix_one "$n"; done
    ;;
  *) fix_one "$1" ;;
esac
