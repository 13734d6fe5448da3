#!/bin/sh
# Builds the Containerfile beside this with docker, and pushes it to the operator's registry.
#
# Because [build] says `registry = true`, Pointsman sets POINTSMAN_REGISTRY (where this service's images go) and
# DOCKER_CONFIG (who we are there). It reads web.digest: what was pushed, by its digest.
#
# An authority of the registry's own is told to docker's daemon, in /etc/docker/certs.d/HOST:PORT/ca.crt. What the daemon starts
# is no part of this build, and does not end with it.
set -eu

image=$POINTSMAN_REGISTRY/web:${POINTSMAN_RELEASE#*@}

# Layers stay with the daemon for the next build, until somebody says `docker system prune`.
docker build --quiet --file Containerfile --tag "$image" .
docker push --quiet "$image"
# An image may have been pushed to several places: the one that this build knows of counts.
docker image inspect --format '{{range .RepoDigests}}{{println .}}{{end}}' "$image" | grep "^${image%:*}@" > web.digest
