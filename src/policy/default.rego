package docker

# The policy of BUILDX_DEFAULT_POLICY: images of Docker that builds use unasked have to be signed,
# from the releases on that are.

numbered := `^(\d+)(?:\.(\d+)(?:\.\d+)?)?(?:-labs)?$`

signed_since := {
	"docker.io/docker/dockerfile": {"names": ["latest", "labs", "master"], "versions": numbered, "since": [1, 21]},
	"docker.io/docker/dockerfile-upstream": {"names": ["latest", "labs", "master"], "versions": numbered, "since": [1, 21]},
	"docker.io/docker/buildkit-syft-scanner": {"names": ["latest"], "versions": numbered, "since": [1, 10]},
	"docker.io/moby/buildkit": {
		"names": [
			"latest", "latest-ubuntu", "rootless", "master", "master-rootless", "master-ubuntu",
			"nightly", "nightly-rootless", "nightly-ubuntu",
		],
		"versions": `^v(\d+)\.(\d+)\.\d+(?:-rc\d+)?(?:-rootless|-ubuntu)?$`,
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
	regex.match(`^buildx-stable-\d+(?:-rootless|-gpu)?$`, input.image.tag)
	input.image.fullRepo == "docker.io/moby/buildkit"
}

must_be_signed if {
	of_repository := signed_since[input.image.fullRepo]
	found := regex.find_all_string_submatch_n(of_repository.versions, input.image.tag, 1)[0]
	[to_number(found[1]), minor(found[2])] >= of_repository.since
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
