#!/bin/sh
# Builds the Containerfile beside this with buildah, which needs no daemon, and pushes it to the operator's registry.
#
# Because [build] says `registry = true`, Pointsman sets POINTSMAN_REGISTRY (where this service's images go),
# REGISTRY_AUTH_FILE (who we are there), and POINTSMAN_REGISTRY_CERTS where the registry has an authority of its own. It reads
# web.digest: what was pushed, by its digest.
set -eu

image=$POINTSMAN_REGISTRY/web:${POINTSMAN_RELEASE#*@}

# Layers go with the workspace. Base images that are to be kept between builds belong below $POINTSMAN_CACHE.
export BUILDAH_ISOLATION="${BUILDAH_ISOLATION:-chroot}"
in_storage() {
  buildah --storage-driver vfs --root "$HOME/containers" --runroot "$HOME/containers-run" "$@"
}

# The commit's own time in place of now: the same commit makes the same bytes, and the same digest.
in_storage bud --quiet --timestamp "$(git log -1 --format=%ct)" --file Containerfile --tag "$image" .
in_storage push --quiet ${POINTSMAN_REGISTRY_CERTS:+--cert-dir "$POINTSMAN_REGISTRY_CERTS"} \
  --digestfile "$HOME/digest" "$image" "docker://$image"
echo "${image%:*}@$(cat "$HOME/digest")" > web.digest
