#!/bin/bash
# break.sh [--freeze] NAME [INSTANCE]   injects a fault (into its default instance, or the one named)
# break.sh --list                       lists the faults: name, default instance, effect, nova's reaction
# break.sh --markdown                   the same, as the table of README.md
# break.sh --active                     lists the injected faults
#
# Every fault is real, and lab/fix.sh NAME undoes it.
#   --freeze   stops nova-compute first (SIGSTOP), so that nova neither notices nor repairs the fault;
#              fix.sh resumes it
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
. "$LAB_DIR/faults.sh"
[ $# -gt 0 ] || set -- --help
help_if_asked "$@"
freeze=
if [ "$1" = --freeze ]; then
  freeze=1
  shift
fi
case ${1:-} in
  --list)
    for n in "${F_NAMES[@]}"; do printf '%-20s %-11s %s\n%32s nova: %s\n' "$n" "${F_VM[$n]}" "${F_WHAT[$n]}" "" "${F_NOVA[$n]}"; done
    exit 0
    ;;
  --markdown)
    echo '| fault | instance | what it does | what nova does by itself |'
    echo '|---|---|---|---|'
    # shellcheck disable=SC2016  # the backticks are markdown's
    for n in "${F_NAMES[@]}"; do printf '| `%s` | %s | %s | %s |\n' "$n" "${F_VM[$n]}" "${F_WHAT[$n]}" "${F_NOVA[$n]}"; done
    exit 0
    ;;
  --active)
    need_lab
    ls "$FAULTS"
    exit 0
    ;;
esac
need_root
need_lab
name=${1:-}
[ -n "${F_VM[${name:-none}]:-}" ] || die "no fault is called '$name': lab/break.sh --list lists them"
S=$FAULTS/$name
[ ! -e "$S" ] || die "$name is already injected: lab/fix.sh $name undoes it"
I=${2:-${F_VM[$name]}} u='' d=''
if [ "$I" != - ]; then
  alive mariadb || die "MariaDB, which knows the UUID of $I, is not running (lab/status.sh shows what is)"
  u=$(uuid_of "$I")
  [ -n "$u" ] || die "no instance is called $I: lab/status.sh shows them, lab/instances.sh boots them"
  d=$(virsh domname "$u" 2>/dev/null | sed -n 1p) || true # a shelved instance has no domain
fi
mkdir -p "$S"
printf 'I=%q u=%q d=%q freeze=%q\n' "$I" "$u" "$d" "$freeze" >"$S/target"
if [ "$I" = - ]; then on="the host"; else on="$I ($u)"; fi
say "breaking $on: $name, ${F_WHAT[$name]}"
if [ -n "$freeze" ]; then
  kill -STOP "$(pid_of nova-compute)"
  say "   nova-compute is frozen"
fi
fn=${name//-/_}
HINT="lab/fix.sh $name undoes the injection, lab/fix.sh --forget $name only drops the record"
"b_$fn"
until_ok 20 "c_$fn" || die "$name did not take effect"
say "broken: $name"
