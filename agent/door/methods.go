package door

import (
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	"kogge.example/agent/api/kogge/v1"
	"kogge.example/update/fleet"
)

// method is what the contract says about who may call.
type method struct {
	least          fleet.Role
	beforeAdoption bool
	expiredToo     bool
	stream         bool // goes on for as long as its caller likes
}

// MetricsPath answers Prometheus. It needs a certificate as every call does.
const MetricsPath = "/metrics"

// files are the contract.
var files = []protoreflect.FileDescriptor{
	apiv1.File_kogge_v1_node_proto, apiv1.File_kogge_v1_workload_proto, apiv1.File_kogge_v1_registry_proto,
	apiv1.File_kogge_v1_config_proto, apiv1.File_kogge_v1_upkeep_proto, apiv1.File_kogge_v1_observe_proto,
	apiv1.File_kogge_v1_volume_proto, apiv1.File_kogge_v1_update_proto, apiv1.File_kogge_v1_fleet_proto,
	apiv1.File_kogge_v1_care_proto, apiv1.File_kogge_v1_vote_proto,
}

// Methods reads the contract: path of a call → who may make it. A method that names
// no role is left out, so that nobody may.
func Methods() map[string]method {
	all := map[string]method{MetricsPath: {least: fleet.RoleReader}}
	for _, file := range files {
		for i := range file.Services().Len() {
			service := file.Services().Get(i)
			for j := range service.Methods().Len() {
				m := service.Methods().Get(j)
				options := m.Options().(*descriptorpb.MethodOptions)
				role, ok := roles[proto.GetExtension(options, apiv1.E_LeastRole).(apiv1.Role)]
				if !ok {
					continue
				}
				all["/"+string(service.FullName())+"/"+string(m.Name())] = method{
					least:          role,
					beforeAdoption: proto.GetExtension(options, apiv1.E_BeforeAdoption).(bool),
					expiredToo:     proto.GetExtension(options, apiv1.E_ExpiredToo).(bool),
					stream:         m.IsStreamingServer() || m.IsStreamingClient(),
				}
			}
		}
	}
	return all
}

var roles = map[apiv1.Role]fleet.Role{
	apiv1.Role_ROLE_READER:   fleet.RoleReader,
	apiv1.Role_ROLE_OPERATOR: fleet.RoleOperator,
	apiv1.Role_ROLE_ADMIN:    fleet.RoleAdmin,
}
