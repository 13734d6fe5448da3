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

# Where commits come from: an https, ssh or file URL, or an absolute path. Tags that are released are semver, such as v1.2.3, unless
# tags = "RELEASE_{date}" beside the branch says what they look like ({semver}, {date} or {number}).
source = { repository = "https://git.example.com/SERVICE.git", branch = "main" }

# What asks for a release by itself; without it `pointsman release build SERVICE` does.
# [trigger]
# commits = true                          # each new head of the branch
# tags = true                             # each new tag
# schedule = "0 3 * * mon-fri"            # the head, if it was not released yet; minute, hour, day, month, day of the week
# time_zone = "Australia/Sydney"
# poll = "1m"                             # how often the repository is looked at; a webhook makes it quicker
# limits = { hour = 6, day = 40 }         # builds that begin by themselves

# How a commit becomes a release: one command in a clean checkout, with a cleared environment.
[build]
command = ["./build.sh"]
timeout = "15m"
# environment = { PROFILE = "release" }   # set for the command
# pass = ["CARGO_HOME"]                   # passed on from the controller's own environment
# secrets = ["NPM_TOKEN"]                 # what the operator gave this service: a variable and a file, hidden in logs
# registry = true                         # the command may push images to the operator's registry
# size = "20GiB"                          # of the checkout and all that is written beside it
# contain = false                         # for tools that make a namespace of their own: processes may outlive the build
#
# [[build.check]]                         # looks at what was built before it counts as built
# name = "fits"
# command = ["./checks/fit"]
# timeout = "5m"

# What is kept of the build, and how it runs. Exactly one component has a protocol: requests go to it.
[component.web]
folder = "dist"                           # becomes the artifact; "dist/{environment}" is one for each stage
# image_digest_file = "web.digest"        # in place of `folder` and `run`: which image the command has pushed (`init --recipe`)
# image = "registry.example.com/SERVICE/web"    # where to, if that file says its digest alone
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

# How a release enters: "all-at-once" (the default), "blue-green" (checked at its own host, then everything), or in steps.
# A step is over when its time and its requests have passed, checks are well, and the proxies' counts say that the release
# is no worse than the stable one was at the same time.
# strategy = "canary"
# steps = [
#   { insiders = "x-insider: yes", pause = true },   # whoever sends this field, until `pointsman rollout resume`
#   { share = "0.1%", requests = 500 },
#   { share = "10%", for = "10m" },
#   { share = "50%" },                    # until it is known to be no worse
#   { share = "100%" },
# ]
# sticky = "identity"                     # none | identity | cookie: whose release stays the same while shares move
# meanwhile = "queue"                     # finish | replace | queue: what becomes of another one that is promoted meanwhile
# on_worse = "rollback"                   # rollback | freeze
# margin = { errors = "0.1%", slow = "300ms", slow_share = "5%" }    # how much worse than the stable one is accepted
# failure_header = "x-app-failed"         # an answer with it has failed, unless its value is "0" or "false"
# objective = { errors = "0.1%", slow = "300ms", slow_share = "1%", on_breach = "ask" }    # ask | rollback; watched afterwards
#
# [[stage.production.check]]              # asked as long as the rollout lasts; {host} is the release's own, {release} its number
# name = "smoke"
# http = "https://{host}/smoke"           # or command = ["./smoke", "{release}"], or prometheus = { url, query, least, most }
# app = "smoke"                           # asks as this application: its key is in checks/keys/SERVICE/ENVIRONMENT/smoke of the controller's data
# every = "30s"                           # and timeout = "10s"; it has failed after fall = 3 in a row
"#;
