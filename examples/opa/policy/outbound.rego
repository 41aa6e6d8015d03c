# What an agent may send, and what may come back to it. Everything that is not said here is refused.
package authbridge.outbound

default request := {"allow": false, "reason": "this agent has no business there"}

# A tunnel: the TLS bridge, where it is on, shows the requests inside.
request if {
	input.method == "CONNECT"
	some host in object.keys(data.services)
	input.host == sprintf("%s:443", [host])
}

request if allowed_call

request := {"allow": false, "reason": sprintf("%s is not allowed on %s", [input.method, input.host])} if {
	input.method != "CONNECT"
	data.services[service_name]
	not allowed_call
}

service_name := split(input.host, ":")[0]

allowed_call if {
	some rule in data.services[service_name]
	input.method in rule.methods
	startswith(input.path, rule.path)
}

# Programs do not come in through a tool call.
default response := {"allow": false, "reason": "answers of this type are kept out"}

response if {
	type := split(object.get(input.response.headers, "content-type", "text/plain"), ";")[0]
	type in data.answers
}
