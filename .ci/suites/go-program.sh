# Sourced by the suites whose programs are Go packages.
# go_program FOLDER PACKAGE MODULE@VERSION... builds PACKAGE with these modules into FOLDER of the kept programs, once, and
# prints the path of the program. It fails where Go or a module cannot be had.
go_program() {
  local folder="${TMPDIR:-/tmp}/authbridge-ci-$(id -u)/suites/$1" package=$2 program work status=0
  shift 2
  program="$folder/${package##*/}"
  if [ ! -x "$program" ]; then
    # Where Go installs itself, which not every shell has on its PATH.
    if ! command -v go >/dev/null && [ -x /usr/local/go/bin/go ]; then PATH=$PATH:/usr/local/go/bin; fi
    command -v go >/dev/null || return 1
    work=$(mktemp -d)
    mkdir -p "$folder"
    (
      cd "$work" && export CGO_ENABLED=0 GOFLAGS=-buildvcs=false
      go mod init throwaway && timeout 300 go get "$package" "$@" &&
        nice timeout 600 go build -trimpath -ldflags='-s -w' -o program "$package" && mv program "$program"
    ) >"$work/log" 2>&1 || status=1
    [ $status -eq 0 ] || tail -n 5 "$work/log" >&2
    rm -rf "$work"
  fi
  [ $status -eq 0 ] && echo "$program"
}
