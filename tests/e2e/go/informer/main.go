// A program as one writes it with client-go, speaking protobuf: informers with an index and a work queue, apply
// configurations, an elected leader, events, and exec in a pod over WebSocket and over SPDY.
package main

import (
	"bytes"
	"context"
	"fmt"
	"log"
	"os"
	"sort"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	corev1apply "k8s.io/client-go/applyconfigurations/core/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/util/retry"
	"k8s.io/client-go/util/workqueue"
)

const many = 50

func must(err error, what string) {
	if err != nil {
		log.Fatalf("%s: %v", what, err)
	}
}

func expect(ok bool, format string, args ...any) {
	if !ok {
		log.Fatalf(format, args...)
	}
}

func until(ctx context.Context, what string, condition func() bool) {
	err := wait.PollUntilContextTimeout(ctx, 50*time.Millisecond, 30*time.Second, true,
		func(context.Context) (bool, error) { return condition(), nil })
	must(err, what)
}

func main() {
	namespace := os.Args[1]
	config, err := clientcmd.BuildConfigFromFlags("", os.Getenv("KUBECONFIG"))
	must(err, "kubeconfig")
	config.QPS = -1
	config.ContentType = "application/vnd.kubernetes.protobuf"
	config.AcceptContentTypes = "application/vnd.kubernetes.protobuf"
	client := kubernetes.NewForConfigOrDie(config)
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	defer cancel()
	informed(ctx, client, namespace)
	applied(ctx, client, namespace)
	elected(ctx, client, namespace)
	executed(ctx, client, config, namespace)
	fmt.Println("all of it")
}

// informed: what the informer tells, through a work queue, ends as what is there.
func informed(ctx context.Context, client kubernetes.Interface, namespace string) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	factory := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithNamespace(namespace),
		informers.WithTweakListOptions(func(o *metav1.ListOptions) { o.LabelSelector = "of=go" }))
	informer := factory.Core().V1().ConfigMaps()
	must(informer.Informer().AddIndexers(cache.Indexers{"parity": func(o any) ([]string, error) {
		return []string{o.(*corev1.ConfigMap).Data["parity"]}, nil
	}}), "index")
	queue := workqueue.NewTypedRateLimitingQueue(workqueue.DefaultTypedControllerRateLimiter[string]())
	defer queue.ShutDown()
	enqueue := func(o any) {
		key, err := cache.DeletionHandlingMetaNamespaceKeyFunc(o)
		must(err, "key")
		queue.Add(key)
	}
	_, err := informer.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: enqueue, UpdateFunc: func(_, o any) { enqueue(o) }, DeleteFunc: enqueue,
	})
	must(err, "handler")
	var lock sync.Mutex
	known := map[string]string{}
	worker := func() {
		for {
			key, shutdown := queue.Get()
			if shutdown {
				return
			}
			_, name, _ := cache.SplitMetaNamespaceKey(key)
			found, err := informer.Lister().ConfigMaps(namespace).Get(name)
			lock.Lock()
			if apierrors.IsNotFound(err) {
				delete(known, name)
			} else {
				must(err, "lister")
				known[name] = found.Data["n"]
			}
			lock.Unlock()
			queue.Forget(key)
			queue.Done(key)
		}
	}
	for range 3 {
		go worker()
	}
	maps := client.CoreV1().ConfigMaps(namespace)
	create := func(i int) {
		_, err := maps.Create(ctx, &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("m-%d", i), Labels: map[string]string{"of": "go"}},
			Data:       map[string]string{"n": "0", "parity": fmt.Sprint(i % 2)},
		}, metav1.CreateOptions{})
		must(err, "create")
	}
	for i := range many / 2 { // some are there before, some come after
		create(i)
	}
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	for i := many / 2; i < many; i++ {
		create(i)
	}
	for i := range many {
		name := fmt.Sprintf("m-%d", i)
		if i%5 == 0 {
			must(maps.Delete(ctx, name, metav1.DeleteOptions{}), "delete")
			continue
		}
		must(retry.RetryOnConflict(retry.DefaultRetry, func() error {
			found, err := maps.Get(ctx, name, metav1.GetOptions{})
			if err != nil {
				return err
			}
			found.Data["n"] = "1"
			_, err = maps.Update(ctx, found, metav1.UpdateOptions{})
			return err
		}), "update")
	}
	until(ctx, "the cache is what is there", func() bool {
		lock.Lock()
		defer lock.Unlock()
		for _, n := range known {
			if n != "1" {
				return false
			}
		}
		return len(known) == many*4/5
	})
	odd, err := informer.Informer().GetIndexer().ByIndex("parity", "1")
	must(err, "index")
	expect(len(odd) == many*2/5, "%d odd ones", len(odd))
	list, err := maps.List(ctx, metav1.ListOptions{LabelSelector: "of=go", Limit: 7})
	must(err, "list")
	expect(len(list.Items) == 7 && list.Continue != "", "a page: %v", list.ListMeta)
	must(maps.DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: "of=go"}), "delete all")
	until(ctx, "all gone", func() bool { lock.Lock(); defer lock.Unlock(); return len(known) == 0 })
}

func applied(ctx context.Context, client kubernetes.Interface, namespace string) {
	maps := client.CoreV1().ConfigMaps(namespace)
	put := func(manager string, data map[string]string) (*corev1.ConfigMap, error) {
		return maps.Apply(ctx, corev1apply.ConfigMap("applied", namespace).WithData(data),
			metav1.ApplyOptions{FieldManager: manager})
	}
	_, err := put("a", map[string]string{"x": "1", "y": "1"})
	must(err, "apply")
	_, err = put("b", map[string]string{"z": "1"})
	must(err, "apply")
	now, err := put("a", map[string]string{"x": "2"})
	must(err, "apply")
	expect(fmt.Sprint(now.Data) == "map[x:2 z:1]", "applied: %v", now.Data)
	_, err = put("b", map[string]string{"x": "3"})
	expect(apierrors.IsConflict(err), "no conflict: %v", err)
	extracted, err := corev1apply.ExtractConfigMap(now, "a")
	must(err, "extract")
	expect(fmt.Sprint(extracted.Data) == "map[x:2]", "extracted: %v", extracted.Data)
	_, err = maps.Patch(ctx, "applied", types.JSONPatchType, []byte(`[{"op":"test","path":"/data/x","value":"9"}]`), metav1.PatchOptions{})
	expect(err != nil, "a failed test was let pass")
}

// elected: two want to lead; the second does when the first lets go.
func elected(ctx context.Context, client kubernetes.Interface, namespace string) {
	var lock sync.Mutex
	var led []string
	run := func(ctx context.Context, id string) {
		leaderelection.RunOrDie(ctx, leaderelection.LeaderElectionConfig{
			Lock: &resourcelock.LeaseLock{
				LeaseMeta:  metav1.ObjectMeta{Name: "leader", Namespace: namespace},
				Client:     client.CoordinationV1(),
				LockConfig: resourcelock.ResourceLockConfig{Identity: id},
			},
			LeaseDuration: 3 * time.Second, RenewDeadline: 2 * time.Second, RetryPeriod: 200 * time.Millisecond,
			ReleaseOnCancel: true,
			Callbacks: leaderelection.LeaderCallbacks{
				OnStartedLeading: func(context.Context) { lock.Lock(); led = append(led, id); lock.Unlock() },
				OnStoppedLeading: func() {},
			},
		})
	}
	leading := func() string { lock.Lock(); defer lock.Unlock(); return strings.Join(led, " ") }
	first, release := context.WithCancel(ctx)
	go run(first, "one")
	until(ctx, "the first leads", func() bool { return leading() == "one" })
	second, end := context.WithCancel(ctx)
	defer end()
	go run(second, "two")
	time.Sleep(500 * time.Millisecond)
	expect(leading() == "one", "two leaders: %s", leading())
	release()
	until(ctx, "the second leads", func() bool { return leading() == "one two" })
}

func executed(ctx context.Context, client *kubernetes.Clientset, config *rest.Config, namespace string) {
	grace := int64(0)
	pod, err := client.CoreV1().Pods(namespace).Create(ctx, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "go"},
		Spec: corev1.PodSpec{
			TerminationGracePeriodSeconds: &grace,
			Containers: []corev1.Container{{
				Name: "c", Image: "registry.k8s.io/e2e-test-images/busybox:1.0", Command: []string{"sleep", "3600"},
			}},
		},
	}, metav1.CreateOptions{})
	must(err, "pod")
	until(ctx, "a running pod", func() bool {
		pod, err = client.CoreV1().Pods(namespace).Get(ctx, "go", metav1.GetOptions{})
		return err == nil && pod.Status.Phase == corev1.PodRunning
	})
	broadcaster := record.NewBroadcaster()
	broadcaster.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: client.CoreV1().Events(namespace)})
	defer broadcaster.Shutdown()
	recorder := broadcaster.NewRecorder(scheme.Scheme, corev1.EventSource{Component: "go"})
	for range 3 {
		recorder.Event(pod, corev1.EventTypeNormal, "Tried", "exec")
	}
	url := client.CoreV1().RESTClient().Post().Resource("pods").Name("go").Namespace(namespace).SubResource("exec").
		VersionedParams(&corev1.PodExecOptions{
			Container: "c", Command: []string{"sh", "-c", "cat; echo err >&2; exit 5"}, Stdin: true, Stdout: true, Stderr: true,
		}, scheme.ParameterCodec).URL()
	websocket, err := remotecommand.NewWebSocketExecutor(config, "GET", url.String())
	must(err, "websocket")
	spdy, err := remotecommand.NewSPDYExecutor(config, "POST", url)
	must(err, "spdy")
	for name, executor := range map[string]remotecommand.Executor{"websocket": websocket, "spdy": spdy} {
		var stdout, stderr bytes.Buffer
		err := executor.StreamWithContext(ctx, remotecommand.StreamOptions{
			Stdin: strings.NewReader("in"), Stdout: &stdout, Stderr: &stderr,
		})
		expect(err != nil && strings.Contains(err.Error(), "exit code 5"), "%s: %v", name, err)
		expect(stdout.String() == "in" && stderr.String() == "err\n", "%s: %q %q", name, stdout.String(), stderr.String())
	}
	until(ctx, "one event, counted", func() bool {
		events, err := client.CoreV1().Events(namespace).List(ctx, metav1.ListOptions{FieldSelector: "reason=Tried"})
		must(err, "events")
		counts := []int{}
		for _, e := range events.Items {
			counts = append(counts, int(e.Count))
		}
		sort.Ints(counts)
		return fmt.Sprint(counts) == "[3]"
	})
	must(client.CoreV1().Pods(namespace).Delete(ctx, "go", metav1.DeleteOptions{}), "delete")
}
