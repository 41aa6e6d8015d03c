// Checks a proof of /v1/decisions/ID/proof: go run verify.go keys.json proof.json
package main

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"log"
	"os"
	"strings"
)

func main() {
	var given struct {
		Keys             []struct{ X string }
		Leaf, Checkpoint string
		Index, TreeSize  int
		AuditPath        [][]byte
	}
	for _, file := range os.Args[1:] {
		text, _ := os.ReadFile(file)
		json.Unmarshal(text, &given)
	}
	text, signature, _ := strings.Cut(given.Checkpoint, "\n\n")
	lines := strings.Split(text+"\n\n\n\n", "\n")
	signed, bytes := false, decode(base64.StdEncoding, signature[strings.LastIndex(signature, " ")+1:])
	for _, key := range given.Keys {
		x := decode(base64.RawURLEncoding, key.X)
		signed = signed || len(x) == 32 && len(bytes) == 68 && ed25519.Verify(x, []byte(text+"\n"), bytes[4:])
	}
	node, index, last := sha256.Sum256([]byte("\x00"+given.Leaf)), given.Index, given.TreeSize-1
	for _, other := range given.AuditPath { // RFC 9162, 2.1.3.2
		for ; index%2 == 0 && index == last && last > 0; index, last = index/2, last/2 {
		}
		pair := [2]string{string(node[:]) + string(other), string(other) + string(node[:])}
		node, index, last = sha256.Sum256([]byte("\x01"+pair[index%2])), index/2, last/2
	}
	if !signed || last != 0 || string(decode(base64.StdEncoding, lines[2])) != string(node[:]) {
		log.Fatal("NOT in the signed log")
	}
	println("in the log of", lines[0], "at", lines[4])
}

func decode(from *base64.Encoding, text string) []byte { b, _ := from.DecodeString(text); return b }
