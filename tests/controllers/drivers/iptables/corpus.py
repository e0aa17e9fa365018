# ruff: noqa: E501  (a rule is one line)
"""Rules for every match and target extension of iptables 1.8: ``TABLE CHAIN RULE``, one a line, in many spellings.

`both` is for IPv4 and IPv6, with {} for an address of the family, {net} for a network. What a kernel lacks it refuses:
the tests print how many rules were taken, and which extensions were refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

BOTH = """
filter INPUT -j ACCEPT
filter INPUT -j DROP
filter FORWARD -j RETURN
filter OUTPUT -j REJECT
filter INPUT -s {} -j ACCEPT
filter INPUT ! -s {net} -j ACCEPT
filter INPUT -s {net} -d {} -j ACCEPT
filter INPUT -i eth0 -j ACCEPT
filter INPUT -i eth+ -j ACCEPT
filter INPUT ! -i lo -j ACCEPT
filter OUTPUT -o veth-a.10 -j ACCEPT
filter OUTPUT ! -o qg-12345678-ab -j ACCEPT
filter FORWARD -i a -o b -s {net} -d {net} -p tcp -j ACCEPT
filter INPUT -p tcp -j ACCEPT
filter INPUT -p udp -j ACCEPT
filter INPUT -p 17 -j DROP
filter INPUT -p gre -j ACCEPT
filter INPUT -p 47 -j DROP
filter INPUT -p esp -j ACCEPT
filter INPUT -p all -j ACCEPT
filter INPUT ! -p tcp -j ACCEPT
filter INPUT -p TCP --dport 22 -j ACCEPT
filter INPUT -p tcp --dport ssh -j ACCEPT
filter INPUT -p tcp -m tcp --dport 1:1024 -j ACCEPT
filter INPUT -p tcp -m tcp --dport :1024 -j ACCEPT
filter INPUT -p tcp -m tcp --dport 1024: -j ACCEPT
filter INPUT -p tcp -m tcp ! --dport 80 -j ACCEPT
filter INPUT -p tcp -m tcp --sport 53 --dport 0:65535 -j ACCEPT
filter INPUT -p tcp -m tcp --source-port 53 --destination-port 54 -j ACCEPT
filter INPUT -p tcp -m tcp --syn -j ACCEPT
filter INPUT -p tcp -m tcp ! --syn -j ACCEPT
filter INPUT -p tcp -m tcp --tcp-flags ALL SYN,ACK -j ACCEPT
filter INPUT -p tcp -m tcp --tcp-flags SYN,RST,ACK,FIN SYN -j ACCEPT
filter INPUT -p tcp -m tcp --tcp-flags ALL NONE -j DROP
filter INPUT -p tcp -m tcp --tcp-option 2 -j ACCEPT
filter INPUT -p tcp -m tcp ! --tcp-option 2 -j DROP
filter INPUT -p udp -m udp --dport 67:68 -j ACCEPT
filter INPUT -p udp -m udp ! --sport 68 -j ACCEPT
filter INPUT -p udp --dport domain -j ACCEPT
filter INPUT -p udplite -m multiport --dports 5 -j ACCEPT
filter INPUT -p tcp -m multiport --dports 80,443 -j ACCEPT
filter INPUT -p tcp -m multiport --ports http,https,8000:8080 -j ACCEPT
filter INPUT -p udp -m multiport ! --sports 1,2,3:4 -j ACCEPT
filter INPUT -p sctp -m multiport --dports 36412 -j ACCEPT
filter INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
filter INPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
filter INPUT -m conntrack --ctstate INVALID -j DROP
filter INPUT -m conntrack ! --ctstate DNAT -j ACCEPT
filter INPUT -m conntrack --ctstate NEW,UNTRACKED,SNAT,DNAT -j ACCEPT
filter INPUT -m conntrack --ctproto tcp -j ACCEPT
filter INPUT -m conntrack --ctproto 6 --ctorigsrcport 1 -j ACCEPT
filter INPUT -m conntrack --ctorigsrc {net} --ctorigdst {} -j ACCEPT
filter INPUT -m conntrack ! --ctreplsrc {} --ctrepldst {net} -j ACCEPT
filter INPUT -m conntrack --ctproto 6 --ctorigsrcport 1:10 --ctorigdstport 20 --ctreplsrcport 30 --ctrepldstport 40:50 -j DROP
filter INPUT -m conntrack --ctstatus EXPECTED,SEEN_REPLY,ASSURED,CONFIRMED -j ACCEPT
filter INPUT -m conntrack ! --ctstatus NONE -j ACCEPT
filter INPUT -m conntrack --ctexpire 10 -j ACCEPT
filter INPUT -m conntrack --ctexpire 10:20 -j ACCEPT
filter INPUT -m conntrack --ctdir ORIGINAL -j ACCEPT
filter INPUT -m conntrack --ctdir REPLY -j ACCEPT
filter INPUT -m state --state NEW -j ACCEPT
filter INPUT -m state --state ESTABLISHED,RELATED -j ACCEPT
filter INPUT -m state ! --state INVALID,UNTRACKED -j ACCEPT
filter INPUT -m addrtype --dst-type LOCAL -j ACCEPT
filter INPUT -m addrtype --src-type UNICAST,LOCAL -j ACCEPT
filter INPUT -m addrtype ! --dst-type MULTICAST --limit-iface-in -j ACCEPT
filter INPUT -m limit --limit 5/min -j ACCEPT
filter INPUT -m limit --limit 5/minute --limit-burst 5 -j ACCEPT
filter INPUT -m limit --limit 10/sec --limit-burst 20 -j ACCEPT
filter INPUT -m limit --limit 3/hour -j ACCEPT
filter INPUT -m limit --limit 1/day --limit-burst 1 -j ACCEPT
filter INPUT -m limit --limit 7/s -j ACCEPT
filter INPUT -m hashlimit --hashlimit-name a --hashlimit-above 10/sec -j DROP
filter INPUT -m hashlimit --hashlimit-name b --hashlimit-upto 10/min --hashlimit-burst 7 --hashlimit-mode srcip -j ACCEPT
filter INPUT -m hashlimit --hashlimit 20 --hashlimit-mode srcip,dstport --hashlimit-name c -j ACCEPT
filter INPUT -m hashlimit --hashlimit-name d --hashlimit-upto 1/hour --hashlimit-htable-size 2000 --hashlimit-htable-max 100 --hashlimit-htable-expire 1000 --hashlimit-htable-gcinterval 60000 -j ACCEPT
filter INPUT -m hashlimit --hashlimit-name e --hashlimit-above 512kb/s -j DROP
filter INPUT -m hashlimit --hashlimit-name f --hashlimit-above 1mb/s --hashlimit-burst 2mb --hashlimit-mode srcip -j DROP
filter INPUT -m hashlimit --hashlimit-name g --hashlimit-upto 10/sec --hashlimit-srcmask 24 --hashlimit-mode srcip -j ACCEPT
filter INPUT -m hashlimit --hashlimit-name h --hashlimit-above 10/sec --hashlimit-rate-match -j DROP
filter INPUT -m hashlimit --hashlimit-name i --hashlimit-above 10/sec --hashlimit-rate-match --hashlimit-rate-interval 10 -j DROP
filter INPUT -m connlimit --connlimit-above 10 -j DROP
filter INPUT -m connlimit --connlimit-upto 10 -j ACCEPT
filter INPUT -m connlimit --connlimit-above 10 --connlimit-mask 16 --connlimit-daddr -j DROP
filter INPUT -m connlimit --connlimit-upto 2 --connlimit-saddr -j ACCEPT
filter INPUT -m connbytes --connbytes 10000:100000 --connbytes-dir both --connbytes-mode bytes -j ACCEPT
filter INPUT -m connbytes --connbytes 10: --connbytes-dir original --connbytes-mode packets -j ACCEPT
filter INPUT -m connbytes ! --connbytes 1:2 --connbytes-dir reply --connbytes-mode avgpkt -j ACCEPT
filter INPUT -m connmark --mark 0x1 -j ACCEPT
filter INPUT -m connmark --mark 10/0xff -j ACCEPT
filter INPUT -m connmark ! --mark 0x10/0xf0 -j ACCEPT
filter INPUT -m connlabel --label 40 -j ACCEPT
filter INPUT -m connlabel ! --label 3 --set -j ACCEPT
filter INPUT -m mark --mark 1 -j ACCEPT
filter INPUT -m mark --mark 0x1/0xff -j ACCEPT
filter INPUT -m mark ! --mark 0xdeadbeef -j ACCEPT
filter INPUT -m mark --mark 010 -j ACCEPT
filter INPUT -m comment --comment plain -j ACCEPT
filter INPUT -m comment --comment "two words and 'quotes'" -j ACCEPT
filter INPUT -m comment --comment "with \\"double\\" and \\\\ back" -j ACCEPT
filter INPUT -m comment --comment "a#b;c$d`e" -j ACCEPT
filter INPUT -m cpu --cpu 0 -j ACCEPT
filter INPUT -m cpu ! --cpu 1 -j ACCEPT
filter INPUT -m cluster --cluster-total-nodes 2 --cluster-local-node 1 --cluster-hash-seed 0xdeadbeef -j ACCEPT
filter INPUT -m cluster --cluster-total-nodes 4 --cluster-local-nodemask 3 --cluster-hash-seed 7 -j ACCEPT
filter INPUT -m dccp -p dccp --sport 1 --dport 2:3 -j ACCEPT
filter INPUT -m dccp -p dccp --dccp-types REQUEST,RESPONSE -j ACCEPT
filter INPUT -m dccp -p dccp --dccp-option 1 -j ACCEPT
filter INPUT -m devgroup --src-group 1 -j ACCEPT
filter OUTPUT -m devgroup ! --dst-group 0x2/0xff -j ACCEPT
filter INPUT -m dscp --dscp 0x10 -j ACCEPT
filter INPUT -m dscp --dscp-class EF -j ACCEPT
filter INPUT -m dscp ! --dscp-class AF41 -j ACCEPT
filter INPUT -m dscp --dscp-class CS3 -j ACCEPT
filter INPUT -p tcp -m ecn --ecn-tcp-cwr -j ACCEPT
filter INPUT -p tcp -m ecn ! --ecn-tcp-ece -j ACCEPT
filter INPUT -m ecn --ecn-ip-ect 1 -j ACCEPT
filter INPUT -m ecn ! --ecn-ip-ect 2 -j ACCEPT
filter INPUT -p esp -m esp --espspi 500 -j ACCEPT
filter INPUT -p esp -m esp ! --espspi 0:0x10 -j ACCEPT
filter INPUT -m helper --helper ftp -j ACCEPT
filter INPUT -m helper ! --helper ftp-2121 -j ACCEPT
filter INPUT -p ipcomp -m ipcomp --ipcompspi 18 --compres -j ACCEPT
filter INPUT -p ipcomp -m ipcomp ! --ipcompspi 0x12 -j ACCEPT
filter INPUT -p ipcomp -m ipcomp --ipcompspi 1:20 -j ACCEPT
filter INPUT -m iprange --src-range {}-{last} -j ACCEPT
filter INPUT -m iprange ! --dst-range {}-{last} -j ACCEPT
filter INPUT -m iprange --src-range {}-{last} --dst-range {}-{last} -j DROP
filter INPUT -m ipvs --ipvs -j ACCEPT
filter INPUT -m ipvs --vproto tcp --vaddr {} --vport 80 --vdir ORIGINAL -j ACCEPT
filter INPUT -m ipvs --vmethod GATE --vportctl 21 -j ACCEPT
filter INPUT -m length --length 100 -j ACCEPT
filter INPUT -m length --length 100:200 -j ACCEPT
filter INPUT -m length ! --length :100 -j ACCEPT
filter INPUT -m length --length 100: -j ACCEPT
filter INPUT -m mac --mac-source 00:0F:EA:91:04:08 -j ACCEPT
filter INPUT -m mac ! --mac-source fa:16:3e:00:00:01 -j ACCEPT
filter INPUT -m nfacct --nfacct-name none -j ACCEPT
filter INPUT -p tcp -m osf --genre Linux -j ACCEPT
filter INPUT -p tcp -m osf --genre Linux --ttl 1 --log 2 -j ACCEPT
filter OUTPUT -m owner --uid-owner root -j ACCEPT
filter OUTPUT -m owner --uid-owner 0-1000 -j ACCEPT
filter OUTPUT -m owner ! --gid-owner 5 -j ACCEPT
filter OUTPUT -m owner --socket-exists -j ACCEPT
filter OUTPUT -m owner --gid-owner 10 --suppl-groups -j ACCEPT
filter FORWARD -m physdev --physdev-in tap1 -j ACCEPT
filter FORWARD -m physdev --physdev-out tap1 --physdev-is-bridged -j ACCEPT
filter INPUT -m physdev ! --physdev-is-in -j ACCEPT
filter FORWARD -m physdev --physdev-in tap+ --physdev-is-bridged -j ACCEPT
filter INPUT -m pkttype --pkt-type broadcast -j ACCEPT
filter INPUT -m pkttype ! --pkt-type unicast -j ACCEPT
filter INPUT -m policy --dir in --pol ipsec -j ACCEPT
filter OUTPUT -m policy --dir out --pol none -j ACCEPT
filter INPUT -m policy --dir in --pol ipsec --strict --reqid 1 --proto esp --mode tunnel --tunnel-src {} --tunnel-dst {} --spi 0x100 -j ACCEPT
filter INPUT -m policy --dir in --pol ipsec --strict --reqid 1 --next --reqid 2 -j ACCEPT
filter INPUT -m quota --quota 1000 -j ACCEPT
filter INPUT -m quota ! --quota 18446744073709551615 -j ACCEPT
filter INPUT -m rateest --rateest RE1 --rateest-lt --rateest-bps 8bit -j ACCEPT
filter INPUT -m recent --set -j ACCEPT
filter INPUT -m recent --rcheck --name badguy --seconds 60 -j DROP
filter INPUT -m recent --update --seconds 60 --hitcount 4 --name SSH --rsource -j DROP
filter INPUT -m recent --set --name SSH --rdest --mask {mask} -j ACCEPT
filter INPUT -m recent ! --remove --name x -j ACCEPT
filter INPUT -m recent --rcheck --rttl --name y -j DROP
filter INPUT -m recent --rcheck --seconds 5 --reap --name z -j DROP
filter INPUT -p sctp -m sctp --sport 1 --dport 2:3 -j ACCEPT
filter INPUT -p sctp -m sctp --chunk-types any INIT -j ACCEPT
filter INPUT -p sctp -m sctp --chunk-types all DATA:Be,INIT -j ACCEPT
filter INPUT -p sctp -m sctp ! --chunk-types only SACK -j ACCEPT
filter INPUT -m set --match-set none src -j ACCEPT
mangle PREROUTING -m socket -j ACCEPT
mangle PREROUTING -m socket --transparent --nowildcard -j ACCEPT
mangle PREROUTING -p tcp -m socket --transparent --restore-skmark -j MARK --set-mark 1
filter INPUT -m statistic --mode random --probability 0.5 -j ACCEPT
filter INPUT -m statistic --mode random --probability 0.1 -j ACCEPT
filter INPUT -m statistic --mode random ! --probability 0.33333 -j ACCEPT
filter INPUT -m statistic --mode nth --every 3 --packet 2 -j ACCEPT
filter INPUT -m statistic --mode nth --every 5 --packet 0 -j ACCEPT
filter INPUT -m string --algo bm --string GET -j DROP
filter INPUT -m string --algo kmp --string "two words" --from 10 --to 100 -j DROP
filter INPUT -m string --algo bm --hex-string |deadbeef| -j DROP
filter INPUT -m string --algo bm --hex-string "a|0a 0D|b" --icase -j DROP
filter INPUT -m string ! --string foo --algo bm -j DROP
filter INPUT -p tcp -m tcpmss --mss 1400 -j ACCEPT
filter INPUT -p tcp -m tcpmss ! --mss 1:1400 -j ACCEPT
filter INPUT -m time --timestart 08:00 --timestop 18:00 -j ACCEPT
filter INPUT -m time --timestart 21:02:03 --timestop 04:05:06 --contiguous -j ACCEPT
filter INPUT -m time --weekdays Mon,Tue,We -j ACCEPT
filter INPUT -m time ! --weekdays 6,7 --kerneltz -j ACCEPT
filter INPUT -m time --monthdays 1,15,31 -j ACCEPT
filter INPUT -m time --datestart 2027-01-01T00:00:00 --datestop 2028-02-03T04:05:06 -j ACCEPT
filter INPUT -m tos --tos 0x10 -j ACCEPT
filter INPUT -m tos --tos 0x10/0x3f -j ACCEPT
filter INPUT -m tos --tos Minimize-Delay -j ACCEPT
filter INPUT -m tos ! --tos Maximize-Throughput -j ACCEPT
filter INPUT -m u32 --u32 0x0=0x0 -j ACCEPT
filter INPUT -m u32 --u32 "6&0xFF=1 && 4&0x3FFF=0 && 0>>22&0x3C@0>>24=0:3" -j DROP
filter INPUT -m u32 ! --u32 "0x0=0x0,0x1:0x5" -j ACCEPT
filter OUTPUT -m cgroup --cgroup 1 -j ACCEPT
filter OUTPUT -m cgroup ! --path /system.slice -j ACCEPT
filter INPUT -m bpf --bytecode "4,48 0 0 9,21 0 1 6,6 0 0 1,6 0 0 0" -j ACCEPT
raw PREROUTING -m rpfilter -j ACCEPT
raw PREROUTING -m rpfilter --loose --validmark --accept-local --invert -j DROP
mangle PREROUTING -m rpfilter --invert -j DROP
filter INPUT -m mark --mark 1 -m conntrack --ctstate NEW -m limit --limit 1/s -m comment --comment many -j ACCEPT
filter INPUT -m limit --limit 1/s -m limit --limit 2/s -j ACCEPT
filter INPUT -j reconciler-x
filter INPUT -p tcp -g reconciler-x
filter FORWARD -s {net} -j neutron-l3-agent-FORWARD
filter INPUT -j LOG
filter INPUT -j LOG --log-prefix "drop: " --log-level info
filter INPUT -j LOG --log-level 7 --log-tcp-sequence --log-tcp-options --log-ip-options --log-uid --log-macdecode
filter INPUT -j LOG --log-prefix "quo\\"te \\\\ "
filter INPUT -j NFLOG
filter INPUT -j NFLOG --nflog-group 3 --nflog-prefix "p q" --nflog-threshold 5
filter INPUT -j NFLOG --nflog-range 64 --nflog-group 1
filter INPUT -j NFLOG --nflog-size 256
filter INPUT -j NFQUEUE
filter INPUT -j NFQUEUE --queue-num 3
filter INPUT -j NFQUEUE --queue-balance 0:3 --queue-bypass
filter INPUT -j NFQUEUE --queue-balance 0:3 --queue-cpu-fanout
filter INPUT -j AUDIT --type accept
filter INPUT -j AUDIT --type drop
filter INPUT -j RATEEST --rateest-name RE1 --rateest-interval 250ms --rateest-ewmalog 500ms
filter INPUT -j LED --led-trigger-id foo --led-delay 1000
filter INPUT -j IDLETIMER --timeout 50 --label x
filter INPUT -j SET --add-set none src
filter INPUT -p tcp -j SYNPROXY
filter INPUT -p tcp -m conntrack --ctstate INVALID,UNTRACKED -j SYNPROXY --sack-perm --timestamp --wscale 7 --mss 1460
filter INPUT -p tcp -j REJECT --reject-with tcp-reset
mangle PREROUTING -j MARK --set-mark 1
mangle PREROUTING -j MARK --set-xmark 0x1/0xff
mangle PREROUTING -j MARK --set-mark 0x10/0xf0
mangle PREROUTING -j MARK --and-mark 0xff
mangle PREROUTING -j MARK --or-mark 0x10
mangle PREROUTING -j MARK --xor-mark 0x3
mangle PREROUTING -j CONNMARK --save-mark
mangle PREROUTING -j CONNMARK --restore-mark --mask 0xff
mangle PREROUTING -j CONNMARK --restore-mark --nfmask 0xf0 --ctmask 0xff
mangle PREROUTING -j CONNMARK --set-mark 0x1
mangle PREROUTING -j CONNMARK --set-xmark 0x1/0x3
mangle PREROUTING -j CONNMARK --and-mark 0xf
mangle PREROUTING -j CONNMARK --or-mark 0xf
mangle POSTROUTING -j CLASSIFY --set-class 1:10
mangle POSTROUTING -j CLASSIFY --set-class 0:FFFF
mangle POSTROUTING -p udp --dport 68 -j CHECKSUM --checksum-fill
mangle PREROUTING -j DSCP --set-dscp 1
mangle PREROUTING -j DSCP --set-dscp 0x10
mangle PREROUTING -j DSCP --set-dscp-class EF
mangle PREROUTING -j TOS --set-tos 0x10
mangle PREROUTING -j TOS --set-tos Minimize-Cost
mangle PREROUTING -j TOS --set-tos 0x10/0x3f
mangle PREROUTING -j TOS --and-tos 0x3f
mangle PREROUTING -j TOS --or-tos 0x4
mangle PREROUTING -j TOS --xor-tos 0x8
mangle FORWARD -p tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu
mangle FORWARD -p tcp --tcp-flags SYN,RST SYN -j TCPMSS --set-mss 1400
mangle PREROUTING -p tcp -j TCPOPTSTRIP --strip-options sack,8
mangle PREROUTING -j TEE --gateway {}
mangle PREROUTING -j TEE --gateway {} --oif eth0
mangle PREROUTING -p tcp -j TPROXY --on-port 3128
mangle PREROUTING -p udp -j TPROXY --on-port 53 --on-ip {} --tproxy-mark 0x1/0x1
mangle PREROUTING -j HMARK --hmark-tuple src,dst --hmark-mod 10 --hmark-offset 100 --hmark-rnd 0xfafe
mangle PREROUTING -j HMARK --hmark-src-prefix 24 --hmark-mod 2 --hmark-rnd 0x1
mangle PREROUTING -j CONNSECMARK --save
mangle PREROUTING -j SECMARK --selctx system_u:object_r:httpd_packet_t:s0
mangle PREROUTING -j TRACE
raw PREROUTING -j TRACE
raw PREROUTING -j NOTRACK
raw PREROUTING -j CT --notrack
raw PREROUTING -j CT --zone 5
raw PREROUTING -j CT --zone-orig 5
raw PREROUTING -j CT --zone mark
raw PREROUTING -p tcp --dport 21 -j CT --helper ftp
raw PREROUTING -j CT --ctevents new,destroy
raw PREROUTING -p tcp -j CT --timeout none
nat PREROUTING -d {} -j DNAT --to-destination {last}
nat PREROUTING -p tcp --dport 80 -j DNAT --to-destination {port}
nat PREROUTING -p tcp -j DNAT --to-destination {range}
nat PREROUTING -d {} -j DNAT --to-destination {last} --random
nat PREROUTING -d {} -j DNAT --to-destination {last} --persistent
nat OUTPUT -d {} -j DNAT --to-destination {last}
nat POSTROUTING -s {net} -j SNAT --to-source {}
nat POSTROUTING -o eth0 -p tcp -j SNAT --to-source {ports}
nat POSTROUTING -s {net} -j SNAT --to-source {} --random-fully
nat POSTROUTING -s {net} -j SNAT --to-source {} --random --persistent
nat POSTROUTING -o eth0 -j MASQUERADE
nat POSTROUTING -o eth0 -p tcp -j MASQUERADE --to-ports 1024-31000
nat POSTROUTING -o eth0 -j MASQUERADE --random
nat POSTROUTING -o eth0 -j MASQUERADE --random-fully
nat PREROUTING -p tcp --dport 80 -j REDIRECT --to-ports 9697
nat PREROUTING -p tcp --dport 80 -j REDIRECT --to-ports 9697-9699 --random
nat PREROUTING -p udp -j REDIRECT
nat PREROUTING -d {net} -j NETMAP --to {net}
nat POSTROUTING -m mark ! --mark 0x2/0xffff -m conntrack --ctstate DNAT -j SNAT --to-source {}
security INPUT -j ACCEPT
security OUTPUT -j CONNSECMARK --restore
"""

IPV4 = """
filter INPUT -s 10.0.0.1/255.255.255.0 -j ACCEPT
filter INPUT -s 10.0.0.1/255.0.255.0 -j ACCEPT
filter INPUT -s 10.0.0.77/24 -j ACCEPT
filter INPUT -s 10/8 -j ACCEPT
filter INPUT -s 0.0.0.0/0 -j ACCEPT
filter INPUT -s 10.0.0.1,10.0.0.2 -j ACCEPT
filter INPUT -s 10.0.0.1,10.0.0.2 -d 10.0.1.1,10.0.1.2 -j DROP
filter INPUT -f -j ACCEPT
filter INPUT ! -f -j ACCEPT
filter INPUT -p icmp -j ACCEPT
filter INPUT -p icmp --icmp-type echo-request -j ACCEPT
filter INPUT -p icmp --icmp-type 8 -j DROP
filter INPUT -p icmp -m icmp --icmp-type 3/4 -j ACCEPT
filter INPUT -p icmp -m icmp ! --icmp-type any -j ACCEPT
filter INPUT -p icmp -m icmp --icmp-type fragmentation-needed -j ACCEPT
filter INPUT -p ah -m ah --ahspi 500 -j ACCEPT
filter INPUT -p ah -m ah ! --ahspi 0:0x20 -j ACCEPT
filter INPUT -m realm --realm 1 -j ACCEPT
filter INPUT -m realm ! --realm 0x1/0xf -j ACCEPT
filter INPUT -m ttl --ttl-eq 64 -j ACCEPT
filter INPUT -m ttl ! --ttl-eq 64 -j ACCEPT
filter INPUT -m ttl --ttl-gt 5 -j ACCEPT
filter INPUT -m ttl --ttl-lt 5 -j ACCEPT
filter INPUT -m ttl --ttl 5 -j ACCEPT
filter INPUT -j REJECT --reject-with icmp-host-prohibited
filter INPUT -j REJECT --reject-with icmp-port-unreachable
filter INPUT -j REJECT --reject-with net-unreach
filter INPUT -j REJECT --reject-with icmp-admin-prohibited
filter INPUT -d 10.0.0.1 -i eth0 -j CLUSTERIP --new --hashmode sourceip --clustermac 01:02:03:04:05:06 --total-nodes 2 --local-node 1
filter INPUT -j ULOG --ulog-nlgroup 2
mangle PREROUTING -j TTL --ttl-set 64
mangle PREROUTING -j TTL --ttl-inc 1
mangle PREROUTING -j TTL --ttl-dec 1
mangle PREROUTING -p tcp -j ECN --ecn-tcp-remove
nat PREROUTING -d 10.0.0.0/24 -j NETMAP --to 10.1.0.0/24
nat PREROUTING -d 10.0.0.1 -p tcp -j DNAT --to-destination :8080
nat PREROUTING -p tcp --dport 1000:2000 -j DNAT --to-destination 10.0.0.9:3000-4000/1000
filter INPUT -m addrtype --dst-type BROADCAST,ANYCAST -j ACCEPT
filter FORWARD ! -i qg-1 ! -o qg-1 -m conntrack ! --ctstate DNAT -j ACCEPT
"""

IPV6 = """
filter INPUT -s fe80::/10 -j ACCEPT
filter INPUT -s 2001:DB8::0001 -j ACCEPT
filter INPUT -s 2001:db8::1/ffff:ffff:: -j ACCEPT
filter INPUT -s ::/0 -j ACCEPT
filter INPUT -p ipv6-icmp -j ACCEPT
filter INPUT -p icmpv6 --icmpv6-type echo-request -j ACCEPT
filter INPUT -p icmpv6 -m icmp6 --icmpv6-type 134/0 -j ACCEPT
filter INPUT -p icmpv6 -m icmp6 ! --icmpv6-type neighbour-solicitation -j ACCEPT
filter INPUT -p icmpv6 -m icmp6 --icmpv6-type destination-unreachable -j ACCEPT
filter INPUT -m ah --ahspi 500 --ahlen 8 --ahres -j ACCEPT
filter INPUT -m dst --dst-len 8 -j ACCEPT
filter INPUT -m dst --dst-opts 149:92,12:12 -j ACCEPT
filter INPUT -m hbh --hbh-len 8 --hbh-opts 1:2,23:42,4:6,8:10 -j ACCEPT
filter INPUT -m eui64 -j ACCEPT
filter INPUT -m frag --fragid 1:42 --fragfirst -j ACCEPT
filter INPUT -m frag --fragmore -j ACCEPT
filter INPUT -m frag --fraglast --fragres -j ACCEPT
filter INPUT -m hl --hl-eq 64 -j ACCEPT
filter INPUT -m hl ! --hl-eq 64 -j ACCEPT
filter INPUT -m hl --hl-gt 5 -j ACCEPT
filter INPUT -m hl --hl-lt 5 -j ACCEPT
filter INPUT -m ipv6header --header hop-by-hop --soft -j ACCEPT
filter INPUT -m ipv6header ! --header 0,frag -j ACCEPT
filter INPUT -p mobility-header -m mh --mh-type 3 -j ACCEPT
filter INPUT -p mobility-header -m mh ! --mh-type 0:5 -j ACCEPT
filter INPUT -m rt --rt-type 0 --rt-segsleft 1:23 -j ACCEPT
filter INPUT -m rt --rt-type 0 --rt-0-res --rt-0-addrs ::1,::2 --rt-0-not-strict -j ACCEPT
filter INPUT -m srh --srh-next-hdr 17 --srh-hdr-len-eq 8 -j ACCEPT
filter INPUT -m srh --srh-segs-left-gt 2 --srh-last-entry-lt 3 --srh-tag 5 -j ACCEPT
filter INPUT -m srh --srh-psid a::/64 --srh-nsid b::/128 ! --srh-lsid c::/0 -j ACCEPT
filter INPUT -j REJECT --reject-with icmp6-adm-prohibited
filter INPUT -j REJECT --reject-with icmp6-policy-fail
filter INPUT -j REJECT --reject-with no-route
mangle PREROUTING -j HL --hl-set 64
mangle PREROUTING -j HL --hl-inc 1
mangle POSTROUTING -s fd00::/64 -j SNPT --src-pfx fd00::/64 --dst-pfx 2001:db8::/64
mangle PREROUTING -d 2001:db8::/64 -j DNPT --src-pfx 2001:db8::/64 --dst-pfx fd00::/64
nat PREROUTING -d 2001:db8::/64 -j NETMAP --to fd00::/64
"""

_FOR_V4 = {
    "": "10.0.0.1", "net": "10.0.0.0/24", "last": "10.0.0.9", "mask": "255.255.255.0", "port": "10.0.0.9:8080",
    "range": "10.0.0.5-10.0.0.9:80-90", "ports": "10.0.0.9:1024-2048",
}  # fmt: skip
_FOR_V6 = {
    "": "2001:db8::1", "net": "2001:db8::/64", "last": "2001:db8::9", "mask": "ffff:ffff::", "port": "[2001:db8::9]:8080",
    "range": "[2001:db8::5-2001:db8::9]:80-90", "ports": "[2001:db8::9]:1024-2048",
}  # fmt: skip


def rules(family: str) -> Iterator[tuple[str, str, str]]:
    """(table, chain, rule) of every line for ``ipv4`` or ``ipv6``."""
    words = _FOR_V4 if family == "ipv4" else _FOR_V6
    filled = re.sub(r"\{(\w*)\}", lambda found: words[found[1]], BOTH)
    for line in (filled + (IPV4 if family == "ipv4" else IPV6)).splitlines():
        if line:
            table, chain, rule = line.split(" ", 2)
            yield table, chain, rule


def extensions(rule: str) -> set[str]:
    """The extensions that a rule names: matches in lower case, targets in upper case."""
    matches = set(re.findall(r"-m ([a-z0-9]+)", rule))
    targets = set(re.findall(r"-j ([A-Z]+)(?= |$)", rule))
    return matches | targets
