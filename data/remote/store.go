package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"strings"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"diptych/data/arrowset"
)

// store is where the files of one set lie.
type store interface {
	// get returns a file's bytes from offset on. An answer of the server that is no content is a *StatusError.
	get(ctx context.Context, file string, offset int64) (io.ReadCloser, error)
	// url is what errors call a file; it holds no secret.
	url(file string) string
}

// StatusError is an answer of a server other than the content that was asked for.
type StatusError struct {
	URL     string
	Status  int    // HTTP's
	Message string // what the server says
}

func (e *StatusError) Error() string {
	text := fmt.Sprintf("%s: %d %s", e.URL, e.Status, http.StatusText(e.Status))
	if e.Message != "" {
		text += ": " + e.Message
	}
	switch e.Status {
	case http.StatusUnauthorized, http.StatusForbidden:
		text += "; check the credentials (for s3: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY or AWS_PROFILE) and the right to read"
	case http.StatusNotFound:
		text += "; check the address"
	}
	return text
}

// temporary tells whether asking again may help.
func temporary(err error) bool {
	var status *StatusError
	if errors.As(err, &status) {
		switch status.Status {
		case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests:
			return true
		}
		return status.Status >= 500
	}
	return true // the network's
}

// openStore finds the store of a set by its address, and the name of the manifest in it.
func openStore(address string, o *Options) (store, string, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, "", fmt.Errorf("%w: %w", ErrAddress, err)
	}
	if u.Host == "" {
		return nil, "", fmt.Errorf("%w: %s: no host or bucket in it", ErrAddress, u.Redacted())
	}
	dir, file := path.Split(u.Path)
	if !strings.HasSuffix(file, ".json") {
		dir, file = u.Path, arrowset.ManifestName
	}
	u.Path, u.RawPath = strings.TrimSuffix(dir, "/")+"/", ""
	switch u.Scheme {
	case "http", "https":
		return &httpStore{base: *u, client: &http.Client{Transport: o.transport()}}, file, nil
	case "s3":
		s, err := openS3(u, o)
		return s, file, err
	}
	return nil, "", fmt.Errorf("%w: %s: want https://, http:// or s3://", ErrAddress, u.Redacted())
}

// transport is a client's side of HTTP: the standard one, except that bytes come as they lie on the server.
func (o *Options) transport() http.RoundTripper {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.DisableCompression = true
	t.MaxIdleConnsPerHost = o.Parallel + 4
	return t
}

// httpStore is a folder of a web server.
type httpStore struct {
	base   url.URL // with the query of the address, in which some servers want a token
	client *http.Client
}

func (s *httpStore) url(file string) string {
	u := s.base
	u.Path += file
	u.RawQuery, u.User = "", nil
	return u.String()
}

func (s *httpStore) get(ctx context.Context, file string, offset int64) (io.ReadCloser, error) {
	u := s.base
	u.Path += file
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrAddress, err)
	}
	if offset > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", offset))
	}
	res, err := s.client.Do(req)
	var wrapped *url.Error
	if errors.As(err, &wrapped) { // its text has the whole address, with the token
		err = wrapped.Err
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.url(file), err)
	}
	switch {
	case res.StatusCode == http.StatusPartialContent && strings.HasPrefix(res.Header.Get("Content-Range"), fmt.Sprintf("bytes %d-", offset)):
		return res.Body, nil
	case res.StatusCode == http.StatusOK: // all of it: the server knows no ranges
		if _, err := io.CopyN(io.Discard, res.Body, offset); err != nil {
			res.Body.Close()
			return nil, fmt.Errorf("%s: %w", s.url(file), err)
		}
		return res.Body, nil
	}
	defer res.Body.Close()
	said, _ := io.ReadAll(io.LimitReader(res.Body, 200))
	return nil, &StatusError{URL: s.url(file), Status: res.StatusCode, Message: oneLine(string(said))}
}

// oneLine is the beginning of what a server says, without its markup's line breaks.
func oneLine(s string) string { return strings.ToValidUTF8(strings.Join(strings.Fields(s), " "), "?") }

// s3Store is a prefix of a bucket.
type s3Store struct {
	core   *minio.Core
	bucket string
	prefix string // "", or ending in /
}

// openS3 takes endpoint, region and credentials from where the AWS tools take them: AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL;
// AWS_REGION or AWS_DEFAULT_REGION; AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, else the profile AWS_PROFILE
// of the credentials file, else a role where the environment names one (AWS_ROLE_ARN, AWS_CONTAINER_CREDENTIALS_…). Without
// any of these requests are not signed, as public buckets allow.
func openS3(u *url.URL, o *Options) (*s3Store, error) {
	env := func(names ...string) string {
		for _, name := range names {
			if v := o.Getenv(name); v != "" {
				return v
			}
		}
		return ""
	}
	endpoint := env("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
	region := env("AWS_REGION", "AWS_DEFAULT_REGION")
	if endpoint == "" {
		endpoint = "https://s3.amazonaws.com"
	} else if region == "" {
		region = "us-east-1" // what S3-compatible servers take without being asked
	}
	e, err := url.Parse(endpoint)
	if err != nil || e.Host == "" || e.Scheme != "http" && e.Scheme != "https" || strings.Trim(e.Path, "/") != "" {
		return nil, fmt.Errorf("%w: AWS_ENDPOINT_URL: %q, want such as https://s3.example.com:9000", ErrAddress, endpoint)
	}
	providers := []credentials.Provider{
		&credentials.Static{Value: credentials.Value{
			AccessKeyID: env("AWS_ACCESS_KEY_ID"), SecretAccessKey: env("AWS_SECRET_ACCESS_KEY"), SessionToken: env("AWS_SESSION_TOKEN"),
			SignerType: credentials.SignatureV4,
		}},
		&credentials.FileAWSCredentials{Filename: env("AWS_SHARED_CREDENTIALS_FILE"), Profile: env("AWS_PROFILE")},
	}
	if env("AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI") != "" {
		providers = append(providers, &credentials.IAM{Client: &http.Client{Transport: http.DefaultTransport}})
	}
	core, err := minio.NewCore(e.Host, &minio.Options{
		Creds: credentials.NewChainCredentials(providers), Secure: e.Scheme == "https", Region: region,
		MaxRetries: 1, Transport: o.transport(), // trying again is done here, for all stores alike
	})
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrAddress, u.Redacted(), err)
	}
	return &s3Store{core: core, bucket: u.Host, prefix: strings.TrimPrefix(u.Path, "/")}, nil
}

func (s *s3Store) url(file string) string { return "s3://" + s.bucket + "/" + s.prefix + file }

func (s *s3Store) get(ctx context.Context, file string, offset int64) (io.ReadCloser, error) {
	var opt minio.GetObjectOptions
	if offset > 0 {
		if err := opt.SetRange(offset, 0); err != nil {
			return nil, fmt.Errorf("%s: %w", s.url(file), err)
		}
	}
	body, _, header, err := s.core.GetObject(ctx, s.bucket, s.prefix+file, opt)
	if err == nil && offset > 0 && header.Get("Content-Range") == "" { // all of it: the server knows no ranges
		if _, err = io.CopyN(io.Discard, body, offset); err != nil {
			body.Close()
		}
	}
	if err != nil {
		if res := minio.ToErrorResponse(err); res.StatusCode != 0 {
			return nil, &StatusError{URL: s.url(file), Status: res.StatusCode, Message: strings.TrimSpace(res.Code + " " + oneLine(res.Message))}
		}
		return nil, fmt.Errorf("%s: %w", s.url(file), err)
	}
	return body, nil
}
