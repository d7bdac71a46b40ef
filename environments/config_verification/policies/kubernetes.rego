# Decides the Kubernetes rules that no check of checkov covers. Input: one manifest.
package kubernetes

import rego.v1

pod := input.spec.template.spec if input.kind == "Deployment"

pod := input.spec if input.kind == "Pod"

system_paths := {"bin", "boot", "dev", "etc", "home", "lib", "proc", "root", "run", "sys", "usr", "var"}

deny contains "host-path" if {
	some volume in pod.volumes
	top := split(trim_left(volume.hostPath.path, "/"), "/")[0]
	top in system_paths
}

deny contains "host-path" if {
	some volume in pod.volumes
	trim(volume.hostPath.path, "/.") == ""
}

deny contains "plain-secret" if {
	some container in pod.containers
	some variable in container.env
	regex.match(`(PASSWORD|TOKEN|SECRET|KEY)$`, variable.name)
	variable.value != ""
}
