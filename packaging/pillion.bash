# SPDX-License-Identifier: Apache-2.0
#
# Completion of pillion for bash.  What follows a command for a machine is the machine's business.

_pillion_words()
{
	mapfile -t COMPREPLY < <(compgen -W "$1" -- "$2")
}

_pillion_names()
{
	local names

	names=$(pillion --list --quiet 2>/dev/null) || names=
	_pillion_words "$names" "$1"
}

_pillion_files() # WORD [SUFFIX]
{
	compopt -o filenames 2>/dev/null
	mapfile -t COMPREPLY < <(compgen -d -- "$1"; compgen -f -X "!*${2-}" -- "$1")
}

_pillion_flavors()
{
	_pillion_words "$(pillion --list --online 2>/dev/null | awk 'below { print $1 } $1 == "NAME" { below = 1 }')" "$1"
}

_pillion()
{
	local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]}
	local command=${COMP_WORDS[1]} running="--distribution --user --cd --exec --shell-type" w

	COMPREPLY=()
	for w in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
		case $w in -e | --exec | --) return ;; esac
	done
	if [ "$COMP_CWORD" -eq 1 ]; then
		_pillion_words "bench --help --install --list --manage --set-default --set-version --shutdown --status
			--terminate --unregister --update --version $running" "$word"
		return
	fi
	case $command:$before in
	*:--shell-type) _pillion_words "standard login none" "$word" ;;
	--install:--version) _pillion_words "1 2" "$word" ;;
	--install:--name | *:-u | *:--user | *:--cd | bench:-[pnr] | bench:--n-* | bench:--rounds | bench:--device) ;;
	--install:-d | --install:--distribution) _pillion_flavors "$word" ;;
	*:-d | *:--distribution) _pillion_names "$word" ;;
	bench:-m | bench:--model) _pillion_files "$word" .gguf ;;
	bench:--plot) _pillion_files "$word" .png ;;
	bench:*) _pillion_words "--model --distribution --device --n-prompt --n-gen --rounds --json --plot --even-if-busy" "$word" ;;
	--install:*)
		case $word in
		-*) _pillion_words "--name --version --no-launch --no-distribution" "$word" ;;
		*) _pillion_flavors "$word" ;;
		esac
		;;
	--list:* | -l:*) _pillion_words "--all --running --quiet --verbose --online --json" "$word" ;;
	--manage:*)
		case $before:$word in
		--manage:[!-]* | --manage:) _pillion_names "$word" ;;
		*) _pillion_words "--set --unset --get --json" "$word" ;;
		esac
		;;
	--set-version:--set-version) _pillion_names "$word" ;;
	--set-version:*) _pillion_words "1 2" "$word" ;;
	--shutdown:*) _pillion_words "--force" "$word" ;;
	--status:*) _pillion_words "--json" "$word" ;;
	--set-default:--set-default | -s:-s | --terminate:--terminate | -t:-t | --unregister:--unregister)
		_pillion_names "$word" ;;
	-d:* | --distribution:* | -u:* | --user:* | --cd:* | --shell-type:*) _pillion_words "$running" "$word" ;;
	esac
}
complete -F _pillion pillion
