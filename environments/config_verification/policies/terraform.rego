# Decides the Terraform rules that no check of checkov covers. Input: {"resource": [{type: {name: body}}]},
# as python-hcl2 reads a file: each attribute is a list of one value, each block a list of bodies.
package terraform

import rego.v1

database_ports := {1433, 3306, 5432}

deny contains "force-destroy" if {
	some resource in input.resource
	some bucket in resource.aws_s3_bucket
	true in bucket.force_destroy
}

deny contains "open-db" if {
	some resource in input.resource
	some group in resource.aws_security_group
	some rule in group.ingress
	some port in rule.from_port
	port in database_ports
	some ranges in rule.cidr_blocks
	some range in ranges
	endswith(range, "/0")
}

deny contains "plain-password" if {
	some resource in input.resource
	some database in resource.aws_db_instance
	some password in database.password
	not startswith(password, "${var.")
}
