// Checks a proof of /v1/decisions/ID/proof: go run verify.go keys.json proof.json
package main

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"strings"
)

func main() {
	var trusted struct{ Keys []struct{ X string } }
	var proof struct {
		Leaf, Checkpoint string
		Index, TreeSize  uint64
		AuditPath        [][]byte
	}
	for at, into := range []any{&trusted, &proof} { // Keys that the proof brings along are not read.
		if text, _ := os.ReadFile(os.Args[at+1]); json.Unmarshal(text, into) != nil {
			log.Fatal("not JSON of this kind: ", os.Args[at+1])
		}
	}
	text, signature, _ := strings.Cut(proof.Checkpoint, "\n\n")
	lines, signed := strings.Split(text+"\n\n\n\n", "\n"), false
	bytes := decode(base64.StdEncoding, signature[strings.LastIndex(signature, " ")+1:])
	for _, key := range trusted.Keys {
		x := decode(base64.RawURLEncoding, key.X)
		signed = signed || len(x) == 32 && len(bytes) == 68 && ed25519.Verify(x, []byte(text+"\n"), bytes[4:])
	}
	isPlace := proof.Index < proof.TreeSize && lines[1] == fmt.Sprint(proof.TreeSize)
	node, index, last := sha256.Sum256([]byte("\x00"+proof.Leaf)), proof.Index, proof.TreeSize-1
	for _, other := range proof.AuditPath { // RFC 9162, 2.1.3.2
		for ; index%2 == 0 && index == last && last > 0; index, last = index/2, last/2 {
		}
		pair := [2]string{string(node[:]) + string(other), string(other) + string(node[:])}
		node, index, last = sha256.Sum256([]byte("\x01"+pair[index%2])), index/2, last/2
	}
	if !signed || !isPlace || last != 0 || string(decode(base64.StdEncoding, lines[2])) != string(node[:]) {
		log.Fatal("NOT in the signed log")
	}
	println("in the log of", lines[0], "at", lines[4])
}

func decode(from *base64.Encoding, text string) []byte { b, _ := from.DecodeString(text); return b }
