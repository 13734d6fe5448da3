//! The file that `init` writes.

use api::ServiceName;

/// A commented `pointsman.toml` for a service; it parses as it is.
pub fn template(service: &ServiceName) -> String {
    TEMPLATE.replace("SERVICE", service.as_str())
}

const TEMPLATE: &str = r#"# What SERVICE is: how it is built, how it runs, and through which stages a release goes.
# `pointsman apply -f pointsman.toml` tells the controller; all mistakes are reported at once, with their lines.
schema = 1
service = "SERVICE"

# Where commits come from: an https, ssh or file URL, or an absolute path.
source = { repository = "https://git.example.com/SERVICE.git", branch = "main" }

# How a commit becomes a release: one command in a clean checkout, with a cleared environment.
[build]
command = ["./build.sh"]
timeout = "15m"
# environment = { PROFILE = "release" }   # set for the command
# pass = ["CARGO_HOME"]                   # passed on from the controller's own environment

# What is kept of the build, and how it runs. Exactly one component has a protocol: requests go to it.
[component.web]
folder = "dist"                           # becomes the artifact
run = ["./SERVICE", "--port", "{port}"]   # the first is relative to the folder
protocol = "h1"                           # h1 | h2c (gRPC) | tls (h1 through TLS) | h2 (gRPC through TLS)
# tls = { name = "SERVICE.internal" }     # for whom its certificate must be; otherwise for SERVICE.<zone>. Beside it
#                                         # ca = """PEM""", by whom; otherwise whom the machine trusts that connects
health = { http = "/healthz", every = "2s" }
# environment = { LOG = "info" }
# stop = "30s"                            # from SIGTERM to SIGKILL

# Where it may be. Each stage is an environment of the operator; `from` is where a release must have served before.
# Nobody may know of it but whom the operator's policies let, with valid credentials; all others are answered as if it did
# not exist. With `public = true` anybody may know of it and call it, whatever policies permit.
[stage.dev]
# public = true

[stage.staging]
from = "dev"
# public = true

[stage.production]
from = "staging"
keep_warm = "24h"                         # how long a rollback stays a matter of milliseconds
# public = true
# cors = ["https://app.example.com"]      # whose pages may call it from a browser, also with gRPC-Web
"#;
