#!/bin/sh
# Builds //:image with Bazel and rules_oci, and pushes it to the operator's registry by //:push.
#
# Not tested: no part of Pointsman's tests runs Bazel. It expects in BUILD.bazel:
#   oci_image(name = "image", ...)
#   oci_push(name = "push", image = ":image", repository = "set.by/the-build")
#
# Because [build] says `registry = true`, Pointsman sets POINTSMAN_REGISTRY (where this service's images go) and
# DOCKER_CONFIG (who we are there). It reads web.digest: what was pushed, by its digest.
set -eu

image=$POINTSMAN_REGISTRY/web

# A server that outlived the build would be ended with it; what it has built is kept for the next one.
bazel() {
  command bazel --batch --output_user_root="$POINTSMAN_CACHE/bazel" "$@"
}

bazel run //:push -- --repository "$image" --tag "${POINTSMAN_RELEASE#*@}"
bazel build //:image.digest
digest=$(cat "$(bazel cquery --output=files //:image.digest)")
echo "$image@$digest" > web.digest
