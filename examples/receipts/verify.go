// Checks a proof of /v1/decisions/ID/proof: go run verify.go keys.json proof.json
package main

import "crypto/ed25519"
import "crypto/sha256"
import "encoding/base64"
import "encoding/json"
import "fmt"
import "log"
import "os"
import "strings"

func main() {
	var trusted struct{ Keys []struct{ X string } } // Keys that the proof brings along are not read.
	var proof struct {
		Leaf, Checkpoint string
		Index, TreeSize  uint64
		AuditPath        [][]byte
	}
	keys, _ := os.ReadFile(os.Args[1])
	claims, _ := os.ReadFile(os.Args[2])
	isRead := json.Unmarshal(keys, &trusted) == nil && json.Unmarshal(claims, &proof) == nil
	text, note, _ := strings.Cut(proof.Checkpoint, "\n\n")
	signature, _ := base64.StdEncoding.DecodeString(note[strings.LastIndex(note, " ")+1:])
	lines, isSigned := strings.Split(text+"\n\n\n\n", "\n"), false
	for _, key := range trusted.Keys {
		x, _ := base64.RawURLEncoding.DecodeString(key.X)
		isSigned = isSigned || len(x) == 32 && len(signature) == 68 && ed25519.Verify(x, []byte(text+"\n"), signature[4:])
	}
	node, index, last := sha256.Sum256([]byte("\x00"+proof.Leaf)), proof.Index, proof.TreeSize-1
	for _, other := range proof.AuditPath { // RFC 9162, 2.1.3.2
		for ; index%2 == 0 && index == last && last > 0; index, last = index/2, last/2 {
		}
		pair := [2]string{string(node[:]) + string(other), string(other) + string(node[:])}
		node, index, last = sha256.Sum256([]byte("\x01"+pair[index%2])), index/2, last/2
	}
	isPlace := proof.Index < proof.TreeSize && lines[1] == fmt.Sprint(proof.TreeSize) && last == 0
	if !isRead || !isSigned || !isPlace || lines[2] != base64.StdEncoding.EncodeToString(node[:]) {
		log.Fatal("NOT in the signed log, or not JSON of this kind")
	}
	println("in the log of", lines[0], "at", lines[4])
}
