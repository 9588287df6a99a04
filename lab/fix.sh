#!/bin/bash
# fix.sh NAME            undoes a fault that break.sh injected
# fix.sh --all           undoes all faults, the last one first
# fix.sh --forget NAME   only drops the record of a fault that never took effect
# fix.sh --rest NAME     undoes what is left of a fault: one that something else has ended is only forgotten
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
forget() { rm -rf --one-file-system "${FAULTS:?}/${1:?which fault?}"; }
in_effect() ( # NAME
  S=$FAULTS/$1 I='' u='' d=''
  # shellcheck source=/dev/null  # assignments, written by break.sh
  . "$S/target"
  "c_${1//-/_}" >/dev/null 2>&1
)

case $1 in
  --forget) forget "$2" ;;
  --rest) if in_effect "$2"; then fix_one "$2"; else forget "$2"; fi ;;
  --all)
    # shellcheck disable=SC2045  # names of faults contain no spaces; the order by time is intended
    for n in $(ls -t "$FAULTS"); do fix_one "$n"; done
    ;;
  *) fix_one "$1" ;;
esac
