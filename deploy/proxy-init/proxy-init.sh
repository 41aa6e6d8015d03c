#!/bin/sh
# Makes the proxy the only way out of this network namespace: an init container of a pod, or any host with a proxy of its own.
#
# Every TCP connection of every user but the proxy's is redirected to the proxy's transparent listener; everything else that
# would leave is dropped, except DNS to the configured resolvers. Both address families, or the script fails. It may run
# again at any time: each table is replaced in one step. At the end it tries to leave directly, and fails if anything does.
#
#   MODE              enforce-redirect, the only one
#   PROXY_UID         user id of the proxy, the only one that may leave (1337)
#   TRANSPARENT_PORT  port of listener.transparent_proxy_addr (8082)
#   INBOUND_PROXY_PORT     port of listener.transparent_inbound_addr (8083): what others send to the pod by TCP goes there as
#                          well, so that nobody goes around the proxy (listener.inbound_interception: transparent); nothing by
#                          default
#   INBOUND_PORTS_EXCLUDE  the proxy's own ports that others may reach, which are left as they are (9091)
#   RESOLV_CONF       file whose nameservers may be asked on port 53 (/etc/resolv.conf)
#   IPV6              redirect, or drop where the kernel cannot redirect IPv6 (redirect)
#   ZTUNNEL_MARK      packet mark of an ambient mesh that is let through, or nothing (0x539/0xfff)
#   IPTABLES_BACKEND  auto, nft or legacy (auto)
#   IPTABLES_CMD, IP6TABLES_CMD   commands to use instead of those of the backend
set -eu
export LC_ALL=C
PATH=${PATH:-/usr/sbin:/usr/bin:/sbin:/bin}:/usr/sbin:/sbin

MODE=${MODE:-enforce-redirect}
PROXY_UID=${PROXY_UID:-1337}
TRANSPARENT_PORT=${TRANSPARENT_PORT:-8082}
INBOUND_PROXY_PORT=${INBOUND_PROXY_PORT:-}
RESOLV_CONF=${RESOLV_CONF:-/etc/resolv.conf}
IPV6=${IPV6:-redirect}
ZTUNNEL_MARK=${ZTUNNEL_MARK-0x539/0xfff}
IPTABLES_BACKEND=${IPTABLES_BACKEND:-auto}

# RFC 5737 and RFC 3849: addresses that nobody has. The packets that the self-test makes never leave, whatever the rules say.
test_address_4=192.0.2.1
test_address_6=2001:db8::1

log() { printf 'proxy-init: %s\n' "$*" >&2; }
die() {
  log "FAILED: $*"
  exit 1
}

# The remedy for a node whose kernel cannot do it.
unsupported() {
  log "$1"
  die "the kernel of this node does not offer what the redirect needs (iptables tables nat and mangle for IPv4 and IPv6 with the matches owner, mark and conntrack and the target REDIRECT: modules iptable_nat, iptable_mangle, ip6table_nat, ip6table_mangle, xt_owner, xt_REDIRECT, or nf_tables with nft_compat). Load them on the node, or, where nodes are not yours to change (managed OpenShift such as ROSA HCP), choose the cooperative mode: egressEnforcement: none in the chart, egress_enforcement: none in the proxy's file. It asks agents to use the proxy and does not force them: read docs/security.md first."
}

number() {
  case $2 in
    '' | *[!0-9]* | 0* | ???????????*) ;;
    *) if [ "$2" -le "$3" ]; then return; fi ;;
  esac
  die "$1 must be a number from 1 to $3, not '$2'"
}

check_settings() {
  case $MODE in
    enforce-redirect) ;;
    redirect) die "MODE=redirect belongs to the Envoy sidecar of the Go program; this proxy is captured with MODE=enforce-redirect" ;;
    *) die "MODE must be enforce-redirect, not '$MODE'; without capture (egressEnforcement: none) this container is not run at all" ;;
  esac
  # User 0 would exempt every privileged process of the pod.
  number PROXY_UID "$PROXY_UID" 4294967294
  number TRANSPARENT_PORT "$TRANSPARENT_PORT" 65535
  case $IPV6 in redirect | drop) ;; *) die "IPV6 must be redirect or drop, not '$IPV6'" ;; esac
  case $IPTABLES_BACKEND in auto | nft | legacy) ;; *) die "IPTABLES_BACKEND must be auto, nft or legacy, not '$IPTABLES_BACKEND'" ;; esac
  case $ZTUNNEL_MARK in
    '') ;;
    *[!0-9a-fA-Fx/]*) die "ZTUNNEL_MARK must be a mark such as 0x539/0xfff, not '$ZTUNNEL_MARK'" ;;
  esac
  [ -z "${OUTBOUND_PORTS_EXCLUDE:-}" ] ||
    log "OUTBOUND_PORTS_EXCLUDE=$OUTBOUND_PORTS_EXCLUDE has no effect here: nothing but the proxy may leave"
  if [ -n "$INBOUND_PROXY_PORT" ]; then
    number INBOUND_PROXY_PORT "$INBOUND_PROXY_PORT" 65535
    # A list of words, in whichever way it is written.
    inbound_excluded=$(echo "${INBOUND_PORTS_EXCLUDE-9091}" | tr ',' ' ')
    for port in $inbound_excluded; do number INBOUND_PORTS_EXCLUDE "$port" 65535; done
  elif [ -n "${INBOUND_PORTS_EXCLUDE:-}" ]; then
    log "INBOUND_PORTS_EXCLUDE=$INBOUND_PORTS_EXCLUDE has no effect without INBOUND_PROXY_PORT: nothing inbound is redirected"
  fi
  [ "$(id -u)" = 0 ] || die "must run as user 0 with the capabilities NET_ADMIN and NET_RAW (securityContext.runAsUser: 0)"
  capabilities=$(sed -n 's/^CapEff:[[:space:]]*//p' /proc/self/status)
  # Bits 12 and 13 of capability.h.
  [ $((0x$capabilities >> 12 & 3)) -eq 3 ] ||
    die "needs the capabilities NET_ADMIN and NET_RAW (securityContext.capabilities.add)"
  for tool in ip nc ping; do
    command -v "$tool" >/dev/null || die "the self-test needs the command $tool"
  done
}

# Reads the nameservers into resolvers_4 and resolvers_6.
read_resolvers() {
  resolvers_4='' resolvers_6='' found=''
  [ -r "$RESOLV_CONF" ] || die "$RESOLV_CONF cannot be read (RESOLV_CONF)"
  # shellcheck disable=SC2013 # one word of each line
  for server in $(sed -n 's/^[[:space:]]*nameserver[[:space:]]\{1,\}\([^[:space:]#;]*\).*/\1/p' "$RESOLV_CONF"); do
    server=${server%%\%*}
    found=yes
    case $server in
      *[!0-9a-fA-F:.]*) die "$RESOLV_CONF: '$server' is not an address" ;;
      *:*) resolvers_6="$resolvers_6 $server" ;;
      *.*.*.*) resolvers_4="$resolvers_4 $server" ;;
      *) die "$RESOLV_CONF: '$server' is not an address" ;;
    esac
  done
  [ -n "$found" ] || die "$RESOLV_CONF names no nameserver: an agent without DNS would be a puzzle to its owner"
}

usable() { "$1" -w 5 -t mangle -S OUTPUT >/dev/null 2>&1; }

# Two sets of rules can exist side by side. The one that this namespace uses already comes first, then nftables.
choose_backend() {
  if [ -n "${IPTABLES_CMD:-}" ]; then
    iptables=$IPTABLES_CMD
    ip6tables=${IP6TABLES_CMD:-ip6tables${iptables##*iptables}}
  else
    order='nft legacy'
    if [ -s /proc/net/ip_tables_names ] && ! nft_in_use; then order='legacy nft'; fi
    [ "$IPTABLES_BACKEND" = auto ] || order=$IPTABLES_BACKEND
    iptables=''
    for backend in $order; do
      if ! command -v "iptables-$backend" >/dev/null || ! usable "iptables-$backend"; then continue; fi
      iptables=iptables-$backend ip6tables=ip6tables-$backend
      break
    done
    if [ -z "$iptables" ]; then
      reason=$("iptables-${order%% *}" -w 5 -t mangle -S OUTPUT 2>&1 | head -n 1) || :
      unsupported "no backend of iptables works here (tried: $order): ${reason:-not installed}"
    fi
    ip6tables=${IP6TABLES_CMD:-$ip6tables}
  fi
  # A read-only root file system has no place for the lock of the legacy backend.
  [ -w /run ] || export XTABLES_LOCKFILE="${XTABLES_LOCKFILE:-/dev/shm/xtables.lock}"
  log "using $iptables and $ip6tables ($("$iptables" --version 2>/dev/null || echo 'version unknown'))"
}

nft_in_use() { iptables-nft-save 2>/dev/null | grep -q '^-A'; }

# exemptions FAMILY CHAIN PROTOCOLS: what every chain lets through; the protocols are those of DNS.
exemptions() {
  [ -z "$ZTUNNEL_MARK" ] || echo "-A $2 -m mark --mark $ZTUNNEL_MARK -j RETURN"
  echo "-A $2 -m owner --uid-owner $PROXY_UID -j RETURN"
  echo "-A $2 -o lo -j RETURN"
  case $1 in
    4) loopback=127.0.0.0/8 bits=32 servers=$resolvers_4 ;;
    6) loopback=::1/128 bits=128 servers=$resolvers_6 ;;
  esac
  echo "-A $2 -d $loopback -j RETURN"
  for server in $servers; do
    for protocol in $3; do echo "-A $2 -d $server/$bits -p $protocol -m $protocol --dport 53 -j RETURN"; done
  done
}

# New connections of everybody else end at the transparent listener.
nat_chain() {
  exemptions "$1" AB_REDIRECT tcp
  echo "-A AB_REDIRECT -p tcp -j REDIRECT --to-ports $TRANSPARENT_PORT"
}

# What is not TCP cannot be redirected: QUIC, DNS elsewhere, ICMP and the rest do not leave.
mangle_chain() {
  echo "-A AB_NOTCP -m conntrack --ctstate ESTABLISHED,RELATED -j RETURN"
  if [ "$1$IPV6" = 6drop ]; then exemptions 6 AB_NOTCP 'udp tcp'; else exemptions "$1" AB_NOTCP udp; fi
  if [ "$1" = 6 ]; then
    # Neighbour and router discovery and multicast listener reports, which the kernel itself sends; no user does.
    for type in 131 132 133 135 136 143; do
      echo "-A AB_NOTCP -p ipv6-icmp -m icmp6 --icmpv6-type $type -m owner ! --uid-owner 0-4294967294 -j RETURN"
    done
  fi
  if [ "$1$IPV6" != 6drop ]; then
    # A packet that belongs to no connection is not redirected, and would leave as it is.
    echo "-A AB_NOTCP -p tcp -m conntrack --ctstate INVALID -j DROP"
    echo "-A AB_NOTCP -p tcp -j RETURN"
  fi
  echo "-A AB_NOTCP -j DROP"
}

# inbound_chain TARGET: what others send to the pod, but for the proxy's own ports.
inbound_chain() {
  # What processes of the pod send to each other.
  echo "-A AB_INBOUND -i lo -j RETURN"
  [ "$1" != DROP ] || echo "-A AB_INBOUND -m conntrack --ctstate ESTABLISHED,RELATED -j RETURN"
  for port in $inbound_excluded; do echo "-A AB_INBOUND -p tcp -m tcp --dport $port -j RETURN"; done
  echo "-A AB_INBOUND -p tcp -j $1"
}

# capture_inbound COMMAND FAMILY: removes what an earlier run has left where there is nothing to capture.
capture_inbound() {
  if [ -z "$INBOUND_PROXY_PORT" ]; then
    for table in nat mangle; do
      while "$1" -w 5 -t $table -D PREROUTING -j AB_INBOUND 2>/dev/null; do :; done
    done
  elif [ "$2$IPV6" = 6drop ]; then
    replace "$1" mangle AB_INBOUND "$(inbound_chain DROP)" PREROUTING
  else
    replace "$1" nat AB_INBOUND "$(inbound_chain "REDIRECT --to-ports $INBOUND_PROXY_PORT")" PREROUTING
  fi
}

# replace COMMAND TABLE CHAIN RULES [HOOK]: one transaction, so that nothing leaks while the script runs again.
replace() {
  hook=${5:-OUTPUT}
  old=$("$1" -w 5 -t "$2" -S "$hook" 2>/dev/null | grep -c "^-A $hook -j $3\$") || :
  deletions=$(
    while [ "${old:-0}" -gt 0 ]; do
      echo "-D $hook -j $3"
      old=$((old - 1))
    done
  )
  if ! problem=$(
    printf '%s\n' "*$2" ":$3 - [0:0]" ${deletions:+"$deletions"} "$4" "-I $hook 1 -j $3" COMMIT |
      "$1-restore" -w 5 --noflush 2>&1
  ); then
    unsupported "$1, table $2: $(echo "$problem" | head -n 3 | tr '\n' ' ')"
  fi
  # What was asked for is there, and first; an answer of success is not proof.
  [ "$("$1" -w 5 -t "$2" -S "$hook" | sed -n '/^-A/{p;q;}')" = "-A $hook -j $3" ] ||
    die "$1, table $2: the jump to $3 is not the first rule of $hook"
  [ "$("$1" -w 5 -t "$2" -S "$3" | grep -c '^-A')" = "$(echo "$4" | wc -l)" ] ||
    die "$1, table $2: $3 does not have the rules that it was given"
}

install_rules() {
  replace "$iptables" mangle AB_NOTCP "$(mangle_chain 4)"
  replace "$iptables" nat AB_REDIRECT "$(nat_chain 4)"
  capture_inbound "$iptables" 4
  if [ ! -e /proc/net/if_inet6 ]; then
    log "this kernel has no IPv6: nothing to cover"
    return
  fi
  has_ipv6=yes
  replace "$ip6tables" mangle AB_NOTCP "$(mangle_chain 6)"
  if [ "$IPV6" = drop ]; then
    log "IPV6=drop: TCP over IPv6 is dropped, not redirected"
  elif ! "$ip6tables" -w 5 -t nat -S OUTPUT >/dev/null 2>&1; then
    unsupported "$ip6tables has no table nat, so IPv6 cannot be redirected (IPV6=drop closes it instead)"
  else
    replace "$ip6tables" nat AB_REDIRECT "$(nat_chain 6)"
  fi
  capture_inbound "$ip6tables" 6
}

# counted COMMAND TABLE CHAIN TARGET [NUMBER]: packets that the rules with this target saw, or only the first, second, ...
counted() {
  "$1" -w 5 -t "$2" -L "$3" -n -v -x |
    awk -v target="$4" -v only="${5:-0}" '$3 == target { seen++; if (!only || seen == only) sum += $1 } END { print sum + 0 }'
}

# attempt ADDRESS KIND PORT: one try to leave.
attempt() {
  case $2 in
    tcp) echo proxy-init | nc -n -w 1 "$1" "$3" ;;
    udp) echo proxy-init | nc -n -u -w 1 "$1" "$3" ;;
    icmp) ping -n -c 1 -W 1 "$1" ;;
  esac >/dev/null 2>&1 || :
}

# expect_seen COMMAND TABLE CHAIN TARGET BEFORE WHAT: three tries each were made, and the rule must have met them all.
expect_seen() {
  [ "$(counted "$1" "$2" "$3" "$4")" -ge $(($5 + 3)) ] ||
    die "self-test, $1: $6 was not met by the rule that must stop it ($4 in $3 of table $2): is another program capturing the traffic of this pod?"
}

# prove COMMAND ADDRESS FAMILY: every way out is tried; a witness behind our rules counts, and drops, what got past them.
prove() {
  if ! ip "-$3" route get "$2" >/dev/null 2>&1; then
    log "IPv$3: the rules are in place; there is no route to try them on"
    return
  fi
  forget_witness "$1"
  "$1" -w 5 -t mangle -N AB_WITNESS
  for protocol in tcp udp all; do "$1" -w 5 -t mangle -A AB_WITNESS -p $protocol -d "$2" ! -o lo -j DROP; done
  "$1" -w 5 -t mangle -I POSTROUTING 1 -j AB_WITNESS
  tcp_table=nat tcp_chain=AB_REDIRECT tcp_target=REDIRECT
  [ "$3$IPV6" != 6drop ] || tcp_table=mangle tcp_chain=AB_NOTCP tcp_target=DROP
  tcp_before=$(counted "$1" $tcp_table $tcp_chain $tcp_target)
  other_before=$(counted "$1" mangle AB_NOTCP DROP)
  for port in 443 80 53; do attempt "$2" tcp $port & done
  for port in 443 53; do attempt "$2" udp $port & done
  attempt "$2" icmp 0 &
  wait
  [ "$(counted "$1" mangle AB_WITNESS DROP 1)" = 0 ] || die "self-test, IPv$3: TCP to $2 got out"
  [ "$(counted "$1" mangle AB_WITNESS DROP 2)" = 0 ] || die "self-test, IPv$3: UDP to $2 (port 443 or 53) got out"
  [ "$(counted "$1" mangle AB_WITNESS DROP)" = 0 ] || die "self-test, IPv$3: ICMP to $2 got out"
  expect_seen "$1" $tcp_table $tcp_chain $tcp_target "$tcp_before" TCP
  expect_seen "$1" mangle AB_NOTCP DROP "$other_before" "UDP or ICMP"
  forget_witness "$1"
  log "IPv$3: tried TCP, DNS elsewhere, UDP 443 and ICMP; nothing got out"
}

forget_witness() {
  while "$1" -w 5 -t mangle -D POSTROUTING -j AB_WITNESS 2>/dev/null; do :; done
  if "$1" -w 5 -t mangle -F AB_WITNESS 2>/dev/null; then "$1" -w 5 -t mangle -X AB_WITNESS; fi
}

has_ipv6='' inbound_excluded=''
check_settings
read_resolvers
choose_backend
trap 'forget_witness "$iptables"; forget_witness "$ip6tables"' EXIT
install_rules
prove "$iptables" "$test_address_4" 4
[ -z "$has_ipv6" ] || prove "$ip6tables" "$test_address_6" 6
[ -z "$INBOUND_PROXY_PORT" ] ||
  log "TCP of others to this pod goes to port $INBOUND_PROXY_PORT, except to:${inbound_excluded:+ $inbound_excluded}"
log "done: only user $PROXY_UID leaves; TCP of everybody else goes to port $TRANSPARENT_PORT, DNS to:$resolvers_4$resolvers_6"
