package registry

// MaxDownloads is how many layers come at the same time, of all images together: each
// costs a connection and a MiB or two here and in containerd.
const MaxDownloads = 4
