package authbridge.outbound_test

import data.authbridge.outbound

test_reading_is_allowed if {
	outbound.request == true with input as {"method": "GET", "host": "weather.example.test", "path": "/v1/now"}
}

test_writing_is_not if {
	outbound.request.allow == false with input as {"method": "POST", "host": "weather.example.test", "path": "/v1/now"}
}

test_other_hosts_are_not if {
	outbound.request.allow == false with input as {"method": "GET", "host": "elsewhere.example.test", "path": "/v1/now"}
}

test_programs_are_kept_out if {
	outbound.response.allow == false with input as {"response": {"headers": {"content-type": "application/x-executable"}}}
}
