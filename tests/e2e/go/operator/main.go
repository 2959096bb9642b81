// An operator as one writes it with controller-runtime, speaking protobuf for what is built in: a Site becomes a
// Deployment and a Service, its status follows them, a finalizer leaves a ConfigMap behind, one of several leads.
package main

import (
	"context"
	"log"
	"os"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	metrics "sigs.k8s.io/controller-runtime/pkg/metrics/server"
)

const finalizer = "go.example.com/site"

var kind = schema.GroupVersionKind{Group: "go.example.com", Version: "v1", Kind: "Site"}

func newSite() *unstructured.Unstructured {
	site := &unstructured.Unstructured{}
	site.SetGroupVersionKind(kind)
	return site
}

type reconciler struct{ client.Client }

func (r *reconciler) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	site := newSite()
	if err := r.Get(ctx, request.NamespacedName, site); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if site.GetDeletionTimestamp() != nil {
		if !controllerutil.RemoveFinalizer(site, finalizer) {
			return ctrl.Result{}, nil
		}
		left := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: site.GetName() + "-left", Namespace: site.GetNamespace()}}
		if err := r.Create(ctx, left); err != nil && !apierrors.IsAlreadyExists(err) {
			return ctrl.Result{}, err
		}
		return ctrl.Result{}, r.Update(ctx, site)
	}
	if controllerutil.AddFinalizer(site, finalizer) {
		return ctrl.Result{}, r.Update(ctx, site)
	}
	replicas64, _, _ := unstructured.NestedInt64(site.Object, "spec", "replicas")
	replicas := int32(replicas64)
	meta := metav1.ObjectMeta{Name: site.GetName(), Namespace: site.GetNamespace()}
	labels := map[string]string{"site": site.GetName()}
	deployment := &appsv1.Deployment{ObjectMeta: meta}
	if _, err := controllerutil.CreateOrUpdate(ctx, r.Client, deployment, func() error {
		deployment.Spec.Replicas = &replicas
		deployment.Spec.Selector = &metav1.LabelSelector{MatchLabels: labels}
		deployment.Spec.Template.Labels = labels
		if len(deployment.Spec.Template.Spec.Containers) == 0 {
			deployment.Spec.Template.Spec.Containers = []corev1.Container{{Name: "web"}}
		}
		container := &deployment.Spec.Template.Spec.Containers[0]
		container.Image = "registry.k8s.io/e2e-test-images/nginx:1.0"
		return controllerutil.SetControllerReference(site, deployment, r.Scheme())
	}); err != nil {
		return ctrl.Result{}, err
	}
	service := &corev1.Service{ObjectMeta: meta}
	if _, err := controllerutil.CreateOrPatch(ctx, r.Client, service, func() error {
		service.Spec.Selector = labels
		if len(service.Spec.Ports) == 0 {
			service.Spec.Ports = []corev1.ServicePort{{Port: 80, TargetPort: intstr.FromInt32(80)}}
		}
		return controllerutil.SetControllerReference(site, service, r.Scheme())
	}); err != nil {
		return ctrl.Result{}, err
	}
	before := site.DeepCopy()
	_ = unstructured.SetNestedField(site.Object, int64(deployment.Status.ReadyReplicas), "status", "ready")
	_ = unstructured.SetNestedField(site.Object, service.Spec.ClusterIP, "status", "address")
	return ctrl.Result{}, r.Status().Patch(ctx, site, client.MergeFrom(before))
}

func main() {
	namespace := os.Args[1]
	ctrl.SetLogger(zap.New(zap.UseDevMode(true)))
	config := ctrl.GetConfigOrDie()
	config = rest.CopyConfig(config)
	config.ContentType = "application/vnd.kubernetes.protobuf"
	manager, err := ctrl.NewManager(config, ctrl.Options{
		Metrics:                       metrics.Options{BindAddress: "0"},
		Cache:                         cache.Options{DefaultNamespaces: map[string]cache.Config{namespace: {}}},
		LeaderElection:                true,
		LeaderElectionID:              "sites",
		LeaderElectionNamespace:       namespace,
		LeaderElectionReleaseOnCancel: true,
	})
	if err != nil {
		log.Fatal(err)
	}
	if err := ctrl.NewControllerManagedBy(manager).For(newSite()).Owns(&appsv1.Deployment{}).Owns(&corev1.Service{}).
		Complete(&reconciler{manager.GetClient()}); err != nil {
		log.Fatal(err)
	}
	if err := manager.Start(ctrl.SetupSignalHandler()); err != nil {
		log.Fatal(err)
	}
}
