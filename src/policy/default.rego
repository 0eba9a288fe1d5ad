package docker

# The policy of BUILDX_DEFAULT_POLICY: images of Docker that builds use unasked have to be signed,
# from the releases on that are.

signed_since := {
	"docker.io/docker/dockerfile": {"names": ["latest", "labs", "master"], "since": [1, 21]},
	"docker.io/docker/dockerfile-upstream": {"names": ["latest", "labs", "master"], "since": [1, 21]},
	"docker.io/docker/buildkit-syft-scanner": {"names": ["latest"], "since": [1, 10]},
	"docker.io/moby/buildkit": {
		"names": [
			"latest", "latest-ubuntu", "rootless", "master", "master-rootless", "master-ubuntu",
			"nightly", "nightly-rootless", "nightly-ubuntu",
		],
		"since": [0, 27],
	},
}

repository_of := {
	"docker.io/docker/dockerfile": "moby/buildkit",
	"docker.io/docker/dockerfile-upstream": "moby/buildkit",
	"docker.io/docker/buildkit-syft-scanner": "docker/buildkit-syft-scanner",
	"docker.io/moby/buildkit": "moby/buildkit",
}

must_be_signed if {
	input.image.tag in signed_since[input.image.fullRepo].names
}

must_be_signed if {
	regex.match(`^buildx-stable-\d+`, input.image.tag)
	input.image.fullRepo == "docker.io/moby/buildkit"
}

must_be_signed if {
	found := regex.find_all_string_submatch_n(`^v?(\d+)(?:\.(\d+))?(?:\.\d+)?(?:-[a-z0-9]+)*$`, input.image.tag, 1)[0]
	since := signed_since[input.image.fullRepo].since
	[to_number(found[1]), minor(found[2])] >= since
}

# A tag of a whole line of releases is as new as its newest.
minor(text) := to_number(text) if text != ""

minor("") := 999999

is_signed if {
	some signature in input.image.signatures
	docker_github_builder_signature(signature, repository_of[input.image.fullRepo])
}

refused contains message if {
	input.image
	must_be_signed
	not is_signed
	message := sprintf("the default policy wants %s to be signed by its builder on GitHub", [input.image.ref])
}

decision := {"allow": count(refused) == 0, "deny_msg": [message | some message in refused]}
