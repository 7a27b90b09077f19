// launch/fill.sh: puts what only the site knows into a copy of the launch files. Plain sh and sed, no network; the bundle stays as it was hashed.
import { quoted } from './shell.js';
import type { Blank } from './started.js';

export interface FillEngine {
  readonly name: string;
  /** Files that are copied as they are, with their mode. */
  readonly scripts: readonly string[];
  /** Files with markers, written once every blank in them is filled. */
  readonly forms: readonly string[];
}
/** What a value may consist of, so that sh, sed, YAML and JSON all take it as it is. */
const allowed = 'A-Za-z0-9._:/@,+-';

export function fillScript(engines: readonly FillEngine[], blanks: readonly Blank[]): string {
  const row = (b: Blank): string =>
    `  ${b.name}) about=${quoted((b.own ? b.about.replace(/ of .*/, ' of the engine') : b.about) + (b.optional ? ' (may stay blank)' : ''))}; count=${b.list ?? 1}; form=${b.form ?? 'any'}; own=${b.own ? 1 : 0} ;;`;
  const names = engines.map(e => e.name);
  const shown = blanks.flatMap(b => (b.own ? names.map(n => `${n}/${b.name}`) : [b.name]));
  return `#!/bin/sh
# Puts what only the site knows into the launch files:  sh launch/fill.sh [--to DIRECTORY] NAME=VALUE ...
# The filled-in copy is written to DIRECTORY (site in the current directory); values given earlier stay. This directory is left as it is.
# Without NAME=VALUE it says which blanks are left. Needs sh, sed and cp alone.
set -eu
LC_ALL=C
export LC_ALL
here=$(cd "$(dirname "$0")" && pwd)
to=site
if [ "\${1:-}" = --to ]; then
  [ $# -ge 2 ] || { echo "--to wants a directory" >&2; exit 64; }
  to=$2
  shift 2
fi

# every blank there is: what it is, and how many values it has
known() {
  case $1 in
${blanks.map(row).join('\n')}
  *) return 1 ;;
  esac
}
hex64() {
  case $1 in *[!0-9a-f]*) return 1 ;; esac
  [ "\${#1}" -eq 64 ]
}
# whether a value looks as it has to; says how that is where it does not
suits() {
  case $1 in
  path) wants='a path that begins with / and has no : or , in it, which containers take for ends'; case $2 in *[:,]*) return 1 ;; /*) ;; *) return 1 ;; esac ;;
  digest) wants='sha256: and 64 digits'; case $2 in sha256:*) hex64 "\${2#sha256:}" ;; *) return 1 ;; esac ;;
  pinned) wants='NAME@sha256: and 64 digits'; case $2 in *@*@*) return 1 ;; ?*@sha256:*) hex64 "\${2##*@sha256:}" ;; *) return 1 ;; esac ;;
  label)
    wants='at most 63 small letters, digits and dashes, with no dash at an end'
    case $2 in *[!a-z0-9-]* | -* | *-) return 1 ;; esac
    [ "\${#2}" -le 63 ] ;;
  subdomain)
    wants='at most 253 small letters, digits, dashes and dots, each part with a letter or digit at its ends'
    case $2 in *[!a-z0-9.-]* | [.-]* | *[.-] | *..* | *.-* | *-.*) return 1 ;; esac
    [ "\${#2}" -le 253 ] ;;
  address)
    wants="an address or a host's name"
    case $2 in *[!A-Za-z0-9._:-]* | [._-]*) return 1 ;; esac ;;
  esac
}
fail() {
  printf '%s\\n' "$1" >&2
  exit 64
}

# ENGINE/NAME=VALUE is for one engine, NAME=VALUE for all that have the blank
split() {
  name=\${1%%=*}
  value=\${1#*=}
  only=
  case $name in */*) only=\${name%%/*}; name=\${name#*/} ;; esac
  name=\${name#HKGAI_}
}
# look at all values before anything is written
for pair in "$@"; do
  case $pair in *=*) ;; *) fail "$pair: write it as NAME=VALUE" ;; esac
  split "$pair"
  known "$name" || fail "$name is no blank here. These are: ${shown.join(' ')}"
  case $only in '' | ${names.join(' | ')}) ;; *) fail "$only is no engine here. These are: ${names.join(' ')}" ;; esac
${
  names.length > 1
    ? `  [ "$own" = 0 ] || [ -n "$only" ] || fail "$name is another for each engine: write ${names.map(n => `${n}/$name=...`).join(' ')}"
`
    : ''
}  case $value in
  '') fail "$name has no value" ;;
  -*) fail "$name: a value does not begin with -, which programs take for an option" ;;
  *[!${allowed}]*) fail "$name: a value has letters, digits and . _ : / @ , + - alone" ;;
  esac
  if [ "$count" -gt 1 ]; then
    commas=$(printf %s "$value" | sed 's/[^,]//g')
    [ "\${#commas}" -eq $((count - 1)) ] || fail "$name wants $count values with commas between, and has $((\${#commas} + 1))"
    rest=$value,
    while [ -n "$rest" ]; do
      one=\${rest%%,*}
      rest=\${rest#*,}
      case $one in
      '') fail "$name has an empty value among its $count" ;;
      -*) fail "$name: a value does not begin with -, which programs take for an option" ;;
      esac
      suits "$form" "$one" || fail "$name wants $wants, not $one"
    done
  else
    suits "$form" "$value" || fail "$name wants $wants, not $value"
  fi
done
# what a line of a filled-in or given form says
was() {
  file=$to/$1/site.env
  [ -f "$file" ] || file=$here/$1/site.env
  sed -n "s/^HKGAI_$2=//p" "$file"
}
for engine in ${names.join(' ')}; do
  image=$(was "$engine" IMAGE)
  digest=$(was "$engine" IMAGE_DIGEST)
  for pair in "$@"; do
    split "$pair"
    case $only in '' | "$engine") ;; *) continue ;; esac
    case $name in IMAGE) image=$value ;; IMAGE_DIGEST) digest=$value ;; esac
  done
  case $image in
  *@*) [ -z "$digest" ] || fail "$engine/IMAGE has a digest already, $image: leave it out there, or give no IMAGE_DIGEST" ;;
  esac
done

for engine in ${engines.map(e => e.name).join(' ')}; do
  mkdir -p "$to/$engine"
  [ "$(cd "$to/$engine" && pwd)" != "$here/$engine" ] || fail "--to is the directory of the forms: choose another"
  [ -f "$to/$engine/site.env" ] || cp "$here/$engine/site.env" "$to/$engine/site.env"
  for pair in "$@"; do
    split "$pair"
    [ -z "$only" ] || [ "$only" = "$engine" ] || continue
    sed "s|^HKGAI_$name=.*|HKGAI_$name=$value|" "$to/$engine/site.env" >"$to/$engine/site.env.new"
    mv "$to/$engine/site.env.new" "$to/$engine/site.env"
  done
done

# marker to value, from a filled-in site.env
rules() {
  image=
  digest=
  while IFS= read -r line; do
    case $line in HKGAI_*=?*) ;; *) continue ;; esac
    name=\${line%%=*}
    value=\${line#*=}
    [ "$name" != HKGAI_IMAGE ] || image=$value
    [ "$name" != HKGAI_IMAGE_DIGEST ] || digest=$value
    count=1
    known "\${name#HKGAI_}" || continue
    if [ "$count" -gt 1 ]; then
      i=0
      rest=$value,
      while [ -n "$rest" ]; do
        printf 's|@%s:%s@|%s|g\\n' "$name" "$i" "\${rest%%,*}"
        rest=\${rest#*,}
        i=$((i + 1))
      done
    else
      printf 's|@%s@|%s|g\\n' "$name" "$value"
    fi
  done <"$1"
  [ -z "$image" ] || printf 's|@HKGAI_IMAGE_PINNED@|%s|g\\n' "$image\${digest:+@$digest}"
}

${engines
  .map(
    e => `engine=${e.name}
${e.scripts.length ? `for file in ${e.scripts.join(' ')}; do cp -p "$here/$engine/$file" "$to/$engine/$file"; done\n` : ''}rules "$to/$engine/site.env" >"$to/$engine/rules.sed"
for file in ${e.forms.join(' ') || '""'}; do
  [ -n "$file" ] || continue
  sed -f "$to/$engine/rules.sed" "$here/$engine/$file" >"$to/$engine/$file.new"
  left=$(sed -n 's/^#.*//; s/.*@HKGAI_\\([A-Z0-9_]*\\)[:0-9]*@.*/\\1/p' "$to/$engine/$file.new" | sed 's/^IMAGE_PINNED$/IMAGE/' | sort -u | tr '\\n' ' ')
  if [ -n "$left" ]; then
    rm -f "$to/$engine/$file.new" "$to/$engine/$file"
    printf '%s is not written yet; still blank: %s\\n' "$to/$engine/$file" "$left"
  else
    mv "$to/$engine/$file.new" "$to/$engine/$file"
    chmod 640 "$to/$engine/$file"
    printf '%s is written\\n' "$to/$engine/$file"
  fi
done
rm -f "$to/$engine/rules.sed"
`,
  )
  .join('\n')}
for engine in ${engines.map(e => e.name).join(' ')}; do
  while IFS= read -r line; do
    case $line in HKGAI_*=) ;; *) continue ;; esac
    name=\${line%=}
    if known "\${name#HKGAI_}"; then printf '%s: %s is blank: %s\\n' "$engine" "\${name#HKGAI_}" "$about"; fi
  done <"$to/$engine/site.env"
done
`;
}
